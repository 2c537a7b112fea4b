"""Supervised asyncio tasks: every task has a parent, and its error always reaches it.

A daemon's long-lived tasks (`start`) must never end: one that returns is as wrong as one that raises, and takes
the group down, so that a supervisor restarts a daemon that lost a part instead of running without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from shoal.errors import ShoalError

T = TypeVar("T")


class Group:
    """An asyncio.TaskGroup that tells long-lived tasks from short ones. Leaving the block waits for the short
    ones and cancels the long-lived ones."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._eternal: set[asyncio.Task[None]] = set()
        self._closing = False

    async def __aenter__(self) -> Group:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for task in self._eternal:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` for the life of the group; its end is an error of the whole group."""
        task = self._group.create_task(self._forever(name, work), name=name)
        self._eternal.add(task)
        task.add_done_callback(self._eternal.discard)
        return task

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work`, which ends by itself; an exception that escapes it takes the group down."""
        return self._group.create_task(work, name=name)

    async def _forever(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        try:
            await work
        except asyncio.CancelledError:
            # A library's word for something else (gRPC's for a closed channel): a TaskGroup would take no notice.
            if task is None or task.cancelling():
                raise
        if not self._closing:
            raise ShoalError(f"{name} ended, and must not while the daemon runs")


class Lasting:
    """Work that is done to its end, even if who asked for it goes away meanwhile."""

    def __init__(self) -> None:
        self._doing: set[asyncio.Future[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """What it comes to, or raises. Cancelled: it goes on."""
        task = asyncio.ensure_future(work)
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for all that is being done."""
        if self._doing:
            await asyncio.wait(self._doing)


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Run all until one ends; the others are cancelled, and have ended when this returns. What it raises is raised."""
    doing = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in doing:
            each.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
