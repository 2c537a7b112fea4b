"""Every node at once (`-A`): what each that is up answers, by host name. A node that fails is told, and the others are
shown; the exit code of the command is then 1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

from cli.client import Client
from cli.command import switch
from cli.container.lifecycle import complain
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from cli.calls import Calls

Answer = TypeVar("Answer")
EveryNode = Annotated[bool, switch("-A", "--all-nodes", help="Ask all nodes of the cluster")]


async def of_all_nodes(
    client: Client, ask: Callable[[Calls], Awaitable[Answer]]
) -> tuple[list[tuple[str, Answer]], int]:
    """(What each node answers, the exit code)."""
    found, failed = [], 0
    nodes = await _nodes(client)
    answers = await asyncio.gather(*(ask(calls) for _, calls in nodes), return_exceptions=True)
    for (name, _), answer in zip(nodes, answers, strict=True):
        if isinstance(answer, ShoalError):
            failed = _tell(name, answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.append((name, answer))
    return found, failed


async def _nodes(client: Client) -> list[tuple[str, Calls]]:
    from shoal.v1 import control_pb2, types_pb2  # which most lists do not need

    nodes = [view.node for view in (await client.control.ListNodes(control_pb2.ListNodesRequest())).nodes]
    up = [each for each in nodes if each.status.state == types_pb2.NODE_STATE_READY]
    return sorted(((each.description.hostname, client.calls.at(each.meta.id)) for each in up), key=lambda each: each[0])


def _tell(name: str, error: ShoalError) -> int:
    return complain(ShoalError(f"node {name}: {error.message}", hint=error.hint))


class Streams(Generic[Answer]):
    """A stream from each node, or one without a name, whose error is the command's. `failed`: the exit code so far."""

    def __init__(self, streams: Iterable[tuple[str, AsyncIterable[Answer]]]) -> None:
        self._streams = [(name, aiter(stream)) for name, stream in streams]
        self.failed = 0

    async def rounds(self) -> AsyncIterator[list[tuple[str, Answer]]]:
        """The next of each, again and again, until none goes on."""
        going = dict(self._streams)
        while going:
            names = list(going)
            taken = await asyncio.gather(*map(anext, going.values()), return_exceptions=True)
            found = []
            for name, answer in zip(names, taken, strict=True):
                if isinstance(answer, BaseException):
                    del going[name]
                    self._ended(name, answer)
                else:
                    found.append((name, answer))
            if found:
                yield found

    async def merged(self) -> AsyncIterator[tuple[str, Answer]]:
        """Whatever comes, as it comes, until none goes on."""
        waiting = {asyncio.ensure_future(anext(stream)): (name, stream) for name, stream in self._streams}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    name, stream = waiting.pop(each)
                    if (error := each.exception()) is not None:
                        self._ended(name, error)
                        continue
                    waiting[asyncio.ensure_future(anext(stream))] = name, stream
                    yield name, each.result()
        finally:
            for each in waiting:
                each.cancel()

    def _ended(self, name: str, error: BaseException) -> None:
        if isinstance(error, StopAsyncIteration):
            return
        if not name or not isinstance(error, ShoalError):
            raise error
        self.failed = _tell(name, error)


async def from_all_nodes(client: Client, watch: Callable[[Calls], AsyncIterable[Answer]]) -> Streams[Answer]:
    """The streams that `watch` begins."""
    return Streams((name, watch(calls)) for name, calls in await _nodes(client))
