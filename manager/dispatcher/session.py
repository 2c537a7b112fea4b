"""Session: one agent's stream, downwards: a welcome and the whole assignment first, then what changes about either."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from manager.dispatcher.assigner import Assigner
from manager.dispatcher.assignment import Assignment, diff
from manager.dispatcher.bulletin import Bulletin
from manager.dispatcher.encode import encoded, head, messages
from shoal.clock import Clock
from shoal.codec import to_wire
from shoal.errors import Exhausted, ShoalError
from shoal.model.trust import Trust
from shoal.v1 import dispatcher_pb2 as wire


class AgentSession:
    """Of the agent of `node_id`. Whoever holds it wakes it when there may be news for it, and has it greet when
    `welcome` may say something else. `catch_up` brings the assigner up to what the view shows.

    Nothing is kept for an agent that does not read: what it is to be told is computed when it can be sent.
    """

    def __init__(
        self,
        node_id: str,
        assigner: Assigner,
        clock: Clock,
        *,
        catch_up: Callable[[], None],
        welcome: Callable[[], wire.Welcome],
        trust: Callable[[], Trust],
    ) -> None:
        self.node_id = node_id
        self.said_goodbye = False
        # Ends the call with an error, also where it waits for the agent to read.
        self.hang_up: Callable[[ShoalError], Awaitable[None]] = _no_call
        # Since when a message waits for the agent to read, in monotonic seconds.
        self.waits_since: float | None = None
        self._assigner = assigner
        self._catch_up = catch_up
        self._welcome = welcome
        self._greeting = False
        self._clock = clock
        self._trust = trust
        self._sequence = 0
        self._sent = Assignment()
        # The bulletins of its networks, each with the position up to which it was sent.
        self._bulletins: dict[str, tuple[Bulletin, int]] = {}
        # Messages to be confirmed, with the positions that hold once they are; and those that were confirmed last.
        self._confirming = False
        self._unconfirmed: deque[tuple[int, dict[str, int]]] = deque()
        self._confirmed: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._ended = False
        self._error: ShoalError | None = None

    def wake(self) -> None:
        """Compare what was sent with what is assigned, and whom to let in, now."""
        self._woken.set()

    def greet(self) -> None:
        """Say again what the agent was welcomed with, if that has changed."""
        self._greeting = True
        self._woken.set()

    def carried_out(self, sequence: int) -> None:
        """The agent confirms a message, and those before it."""
        while self._unconfirmed and self._unconfirmed[0][0] <= sequence:
            self._confirmed = self._unconfirmed.popleft()[1]

    def heard(self, network_id: str) -> int:
        """Up to which position of a network's bulletin the agent surely leads nobody to a backend that went away."""
        if self._unconfirmed:
            return self._confirmed.get(network_id, -1)
        return self._bulletins[network_id][1] if network_id in self._bulletins else -1

    def end(self, error: ShoalError | None = None) -> None:
        """Finish the stream, with `error` for its end; the first call counts."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._woken.set()

    async def responses(self) -> AsyncIterator[wire.SessionResponse | bytes]:
        """What goes down, as messages or their bytes, until `end`, whose error is raised."""
        async for response in self._responses():
            self.waits_since = self._clock.monotonic()
            yield response
            self.waits_since = None

    async def _responses(self) -> AsyncIterator[wire.SessionResponse | bytes]:
        trust, welcome = self._trust(), self._welcome()
        yield wire.SessionResponse(welcome=welcome)
        for message in self._messages(complete=True):
            yield message
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
            if self._greeting:
                self._greeting, before, welcome = False, welcome, self._welcome()
                if welcome != before:
                    yield wire.SessionResponse(welcome=welcome)
            if self._trust() is not trust:
                trust = self._trust()
                yield wire.SessionResponse(trust=to_wire(trust, wire.Trust))
            for message in self._messages():
                yield message

    def _news(self) -> list[bytes]:
        """What the agent does not know yet, all as of one moment; from now on it counts as sent."""
        self._catch_up()
        self._confirming = False
        now = self._assigner.of(self.node_id)
        change = diff(self._sent, now)
        shared = [part for network_id in now.networks for part in self._news_of(network_id)]
        for network_id in self._bulletins.keys() - now.networks.keys():
            bulletin, position = self._bulletins.pop(network_id)
            shared += [*self._since(bulletin, position), *bulletin.removal()]
        self._sent = now
        return [*encoded(change.first), *shared, *encoded(change.last)]

    def _news_of(self, network_id: str) -> list[bytes]:
        bulletin = self._assigner.bulletin(network_id)
        known, position = self._bulletins.get(network_id, (None, 0))
        self._bulletins[network_id] = (bulletin, bulletin.position)
        self._confirming |= known is not bulletin or bulletin.withdrew_at > position
        return self._since(bulletin, position) if known is bulletin else bulletin.whole()

    def _since(self, bulletin: Bulletin, position: int) -> list[bytes]:
        news = bulletin.since(position)
        if news is None:
            raise Exhausted(f"node {self.node_id} reads too slowly: more has changed than is kept for it")
        return news

    def _messages(self, *, complete: bool = False) -> list[bytes]:
        """The news; as a complete assignment it is one message at least. The last one is to be confirmed where a
        backend may have gone away."""
        news = messages(self._news()) or [[]] * complete
        first, last = self._sequence + 1, self._sequence + len(news)
        self._sequence = last
        if self._confirming and news:
            self._unconfirmed.append((last, {id: position for id, (_, position) in self._bulletins.items()}))
        return [
            b"".join(
                (
                    head(
                        number,
                        complete=complete and number == first,
                        more=complete and number < last,
                        confirm=self._confirming and number == last,
                    ),
                    *parts,
                )
            )
            for number, parts in enumerate(news, first)
        ]


async def _no_call(error: ShoalError) -> None:
    """There is none yet."""
