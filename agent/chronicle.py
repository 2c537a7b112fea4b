"""Chronicle: what happened on this host to containers, images, volumes and networks; the last of it, and what follows.

`annals` keeps the last of it for an agent that starts again. `selected` is pure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from agent.annals import Annals
from shoal.broadcast import Broadcast, Subscription
from shoal.clock import Clock
from shoal.errors import InvalidArgument
from shoal.model.event import Event, EventKind

REMEMBERED = 256
_FILTERS = ("container", "event", "image", "label", "network", "scope", "type", "volume")
_KINDS = {each.name.lower(): each for each in EventKind}


class Chronicle:
    """`tell` is what the rooms call; it never waits. Without `annals` it begins with a blank page."""

    def __init__(self, clock: Clock, annals: Annals | None = None) -> None:
        self._clock = clock
        self._annals = annals
        self._events: deque[Event] = deque(annals.load() if annals is not None else (), maxlen=REMEMBERED)
        self._news: Broadcast[Event] = Broadcast()

    def tell(self, event: Event) -> None:
        event = msgspec.structs.replace(event, at_ns=self._clock.now_ns())
        self._events.append(event)
        if self._annals is not None:
            self._annals.add(event, self._events)
        self._news.publish(event)

    def listening(self) -> AbstractContextManager[Subscription[Event]]:
        """All that happens while the block runs."""
        return self._news.subscribe()

    @property
    def listeners(self) -> int:
        """How many follow it now."""
        return len(self._news)

    async def follow(
        self, *, since_ns: int = 0, until_ns: int = 0, filters: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[Sequence[Event]]:
        """What is remembered from `since_ns` on (0: nothing), then what happens until `until_ns` (0: without end).

        Raises InvalidArgument for a filter that is not one, Lagged for a listener who cannot keep up.
        """
        for key, value in filters:
            check_filter(key, value)
        with self.listening() as news:
            past = [each for each in self._events if since_ns and each.at_ns >= since_ns]
            if found := selected(past, filters, until_ns):
                yield found
            while await self._more(news.wait(), until_ns):
                if found := selected(news.drain(), filters, until_ns):
                    yield found

    async def _more(self, wait: Coroutine[Any, Any, None], until_ns: int) -> bool:
        """Wait for news; False once the time is over."""
        waiting = asyncio.ensure_future(wait)
        if not until_ns:
            await waiting
            return True
        left_s = (until_ns - self._clock.now_ns()) / 1e9
        alarm = asyncio.ensure_future(self._clock.sleep(max(left_s, 0)))
        try:
            await asyncio.wait((waiting, alarm), return_when=asyncio.FIRST_COMPLETED)
            return waiting.done()
        finally:
            alarm.cancel()
            waiting.cancel()


def selected(events: Sequence[Event], filters: Sequence[tuple[str, str]], until_ns: int = 0) -> list[Event]:
    """Those that match: values of one key are alternatives, except labels; keys add up."""
    wanted: dict[str, list[str]] = {}
    for key, value in filters:
        wanted.setdefault(key, []).append(value)
    return [
        each
        for each in events
        if (not until_ns or each.at_ns <= until_ns)
        and all(
            (all if key == "label" else any)(_matches(each, key, value) for value in values)
            for key, values in wanted.items()
        )
    ]


def check_filter(key: str, value: str) -> None:
    """Raises InvalidArgument."""
    if key not in _FILTERS:
        raise InvalidArgument(f"invalid filter '{key}'", hint=f"there are: {', '.join(_FILTERS)}")
    if key == "type" and value not in _KINDS:
        raise InvalidArgument(f"invalid value '{value}' for filter 'type'", hint=f"one of {', '.join(_KINDS)}")


def _matches(event: Event, key: str, value: str) -> bool:
    match key:
        case "type":
            return event.kind == _KINDS[value]
        case "event":
            return event.action == value or event.action.startswith(f"{value}:")
        case "label":
            name, equals, text = value.partition("=")
            return name in event.attributes and (not equals or event.attributes[name] == text)
        case "scope":
            return value == "local"
        case "image":
            known = (event.id, event.attributes.get("name", "")) if event.kind == EventKind.IMAGE else ()
            return any(_same(value, each) for each in (*known, event.attributes.get("image", "")))
        case _:
            return event.kind == _KINDS[key] and (event.id.startswith(value) or event.attributes.get("name") == value)


def _same(reference: str, other: str) -> bool:
    """Whether both name one image, a tag or none given."""
    return bool(other) and reference in (other, other.rpartition(":")[0])
