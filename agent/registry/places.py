"""Places: a repository at its registry and at the registry's mirrors. These are asked first, and their failures only
mean that the next one is asked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import msgspec

from agent.registry.auth import Credentials
from agent.registry.repository import Repository
from agent.registry.rules import Rules
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.reference import Reference

log = logging.getLogger(__name__)
T = TypeVar("T")


class Places(msgspec.Struct, frozen=True):
    """`mirrors` in the order in which they are asked; `registry` has the last word."""

    mirrors: tuple[Repository, ...]
    registry: Repository

    @property
    def all(self) -> tuple[Repository, ...]:
        return (*self.mirrors, self.registry)

    async def manifest(self, tag_or_digest: str) -> tuple[bytes, str]:
        """As Repository.manifest."""
        return await self._first(lambda place: place.manifest(tag_or_digest))

    async def digest(self, tag: str) -> str:
        """As Repository.digest."""
        return await self._first(lambda place: place.digest(tag))

    async def _first(self, ask: Callable[[Repository], Awaitable[T]]) -> T:
        for mirror in self.mirrors:
            try:
                return await ask(mirror)
            except ShoalError as error:
                name = mirror.reference.familiar
                log.info("mirror %s is passed over for %s: %s", mirror.connection.host, name, error)
        return await ask(self.registry)


@asynccontextmanager
async def places(
    reference: Reference, *, rules: Rules, credentials: Credentials | None, clock: Clock
) -> AsyncIterator[Places]:
    """Connections to all of them while the block runs. Credentials are for the registry alone."""
    async with AsyncExitStack() as stack:
        mirrors = [
            await stack.enter_async_context(Repository(reference, rules=rules, mirror=mirror, clock=clock))
            for mirror in rules.mirrors.get(reference.domain, ())
        ]
        registry = Repository(reference, rules=rules, credentials=credentials, clock=clock)
        yield Places(tuple(mirrors), await stack.enter_async_context(registry))
