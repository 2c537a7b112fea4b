"""One event to many listeners, bounded: a listener that lags is told so (`Lagged`) and reads everything again,
instead of holding the others up or eating the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Lagged(Exception):
    """More happened than this subscription keeps: what it has missed must be read from the source."""


class Subscription(Generic[T]):
    """An endless asynchronous iterator over what is published from now on."""

    def __init__(self, limit: int) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._lagged = False
        self._ready = asyncio.Event()

    def put(self, item: T) -> None:
        if len(self._items) >= self._limit:
            self._items.clear()
            self._lagged = True
        else:
            self._items.append(item)
        self._ready.set()

    def drain(self) -> list[T]:
        """All that waits, without waiting. Raises Lagged."""
        self._check()
        items = list(self._items)
        self._items.clear()
        self._ready.clear()
        return items

    async def wait(self) -> None:
        """Return once there is something to drain."""
        await self._ready.wait()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            self._check()
            self._ready.clear()
            await self._ready.wait()
        self._check()
        return self._items.popleft()

    def _check(self) -> None:
        if self._lagged:
            self._lagged = False
            raise Lagged(f"a listener lagged behind by more than {self._limit} events")


class Broadcast(Generic[T]):
    """`publish` never waits; each subscription keeps at most `limit` items."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._listeners: set[Subscription[T]] = set()

    def __len__(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def publish(self, item: T) -> None:
        for listener in self._listeners:
            listener.put(item)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription[T]]:
        """Everything published while the block runs."""
        listener = Subscription[T](self._limit)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
