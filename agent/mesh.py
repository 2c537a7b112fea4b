"""The mesh of this host: hands the cluster's networks and endpoints to `agent/network`, and keeps local tasks that
end out of the balance.

`run` is the only caller of `Networks.assign`: wishes that come while one is being carried out become one. What
fails is tried again, so that a task's stop or a new assignment never hangs on a network that is broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from shoal.backoff import Backoff
from shoal.errors import ShoalError
from shoal.model.assignment import NetworkAssignment
from shoal.model.network import Endpoint

log = logging.getLogger(__name__)

SETTLE_S = 10.0
# A busy host that is told of many networks at once makes one after the other.
JOIN_S = 60.0
_LOCAL = frozenset({"bridge", "host", "none"})  # every host has them


class NetworkRoom(Protocol):
    """What this needs of `agent.network.networks.Networks`."""

    async def assign(self, networks: Sequence[NetworkAssignment], endpoints: Sequence[Endpoint]) -> None: ...


class Mesh:
    """`want` and `leave` take effect through `run`; `settled` waits for it."""

    def __init__(self, networks: NetworkRoom) -> None:
        self._room = networks
        self._networks: tuple[NetworkAssignment, ...] = ()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._left: set[str] = set()
        self._joined: set[str] = set()  # by name and by id
        self._wished = 0
        self._tried = 0
        self._changed = asyncio.Condition()

    async def want(self, networks: Sequence[NetworkAssignment], endpoints: Sequence[Endpoint]) -> None:
        """This is all that the cluster wants of this host now."""
        self._networks = tuple(networks)
        self._endpoints = tuple(endpoints)
        await self._wish()

    async def leave(self, task_id: str, service_id: str) -> bool:
        """Take a local task out of the balance of this host; returns once no new connection can reach it from
        here. Whether its service is reached through the balance at all, so that open connections may exist."""
        if task_id not in self._left:
            self._left.add(task_id)
            if any(backend.task_id == task_id for endpoint in self._endpoints for backend in endpoint.backends):
                await self._wish()
        await self.settled()
        return any(endpoint.service_id == service_id for endpoint in self._endpoints)

    def forget(self, task_id: str) -> None:
        """The task is gone: the cluster no longer names it either."""
        self._left.discard(task_id)

    async def settled(self) -> None:
        """Wait until the newest wish was carried out or tried, at most 10 s."""
        wish = self._wished
        try:
            async with asyncio.timeout(SETTLE_S), self._changed:
                await self._changed.wait_for(lambda: self._tried >= wish)
        except TimeoutError:
            log.warning("the networks take longer than %d s to settle", SETTLE_S)

    async def joined(self, networks: Sequence[str]) -> None:
        """Wait until this host takes part in all of them (names or ids of the cluster's), at most 60 s: a task may be
        assigned a moment before its host has its block of the network's addresses."""
        missing = set(networks) - _LOCAL
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOIN_S), self._changed:
                await self._changed.wait_for(lambda: not missing - self._joined)

    async def run(self) -> None:
        """Carry wishes out, for as long as the host is a member."""
        backoff = Backoff(0.5, 15)
        done = 0
        while True:
            if done == self._wished:
                await self._next_wish(done, None)
            wish = self._wished
            if await self._carry_out(first=self._tried < wish):
                done = wish
                backoff.reset()
            await self._note(wish)
            if done != wish:
                await self._next_wish(wish, backoff.next())

    async def _carry_out(self, *, first: bool) -> bool:
        networks = self._networks
        try:
            await self._room.assign(networks, balanced(self._endpoints, self._left))
        except ShoalError as error:
            if first:
                log.error("the cluster's networks cannot be carried out: %s", error)
            return False
        finally:
            # Also after a failure: the others of them are there, and a start tells which one is not.
            self._joined = {name for each in networks for name in (each.network.meta.id, each.network.spec.name)}
        return True

    async def _wish(self) -> None:
        async with self._changed:
            self._wished += 1
            self._changed.notify_all()

    async def _note(self, wish: int) -> None:
        async with self._changed:
            self._tried = max(self._tried, wish)
            self._changed.notify_all()

    async def _next_wish(self, wish: int, timeout_s: float | None) -> None:
        """Wait for a wish after `wish`, or for the time to try again."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._wished > wish)
        except TimeoutError:
            return


def balanced(endpoints: Sequence[Endpoint], left: set[str]) -> tuple[Endpoint, ...]:
    """The endpoints without the tasks that left."""
    return tuple(
        msgspec.structs.replace(
            endpoint, backends=tuple(each for each in endpoint.backends if each.task_id not in left)
        )
        if any(each.task_id in left for each in endpoint.backends)
        else endpoint
        for endpoint in endpoints
    )
