"""Remote: what this host asks of registries besides pulls, which are `images`' own: pushes, lists of tags, what a tag
stands for, logins, searches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from agent.image import platform as platforms
from agent.image import push
from agent.image.compressed import kind_of
from agent.image.deposit import Deposit
from agent.image.holdings import Holdings
from agent.image.push import Pushed, Pusher
from agent.image.source import Report
from agent.registry import login, search
from agent.registry.auth import Credentials
from agent.registry.places import places
from agent.registry.repository import Repository
from agent.registry.rules import Rules
from agent.registry.search import Hit
from shoal import reference as references
from shoal.clock import Clock
from shoal.errors import InvalidArgument
from shoal.reference import DEFAULT_DOMAIN, Reference


class Remote:
    """`working`: as Images.working."""

    def __init__(
        self,
        rules: Rules,
        holdings: Holdings,
        pusher: Pusher,
        *,
        working: Callable[[], AbstractAsyncContextManager[None]],
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._holdings = holdings
        self._pusher = pusher
        self._working = working
        self._clock = clock

    def repository(self, reference: str, *, every_tag: bool) -> str:
        """The canonical name of where a push of `reference` goes. Raises InvalidArgument for what cannot be pushed."""
        return push.pushable(references.parse(reference), every_tag=every_tag).name

    def wanted(self, reference: str, *, every_tag: bool) -> list[Reference]:
        """The tags that a push of `reference` means. Raises NotFound, InvalidArgument."""
        found = push.pushable(references.parse(reference), every_tag=every_tag)
        return push.wanted_of(self._holdings.catalog, found, every_tag=every_tag)

    @asynccontextmanager
    async def _written(self, reference: Reference, credentials: Credentials | None) -> AsyncIterator[Repository]:
        """A repository to send something to that is here, and stays."""
        asking = Repository(reference, rules=self._rules, credentials=credentials, push=True, clock=self._clock)
        async with self._working(), asking as repository:
            yield repository

    async def push(
        self,
        reference: Reference,
        *,
        credentials: Credentials | None,
        compression: str,
        report: Report,
        platform: str = "",
    ) -> Pushed:
        """Send one tag; of an image for several platforms, with `platform` the one for that alone. Cancelled: what is
        out stays there, and the registry forgets it if nobody names it."""
        kind = kind_of(compression)
        async with self._written(reference, credentials) as repository:
            pushed = await self._pusher.push(
                reference,
                repository,
                compression=kind,
                report=report,
                platform=platforms.parse(platform) if platform else None,
            )
        self._holdings.happened("push", self._holdings.find(reference.familiar).record.id, reference.familiar)
        return pushed

    async def push_deposit(
        self, reference: Reference, deposit: Deposit, *, credentials: Credentials | None, compression: str
    ) -> Pushed:
        """Send what is no image, as `push`."""
        kind = kind_of(compression)
        async with self._written(reference, credentials) as repository:
            return await self._pusher.push_deposit(reference, repository, deposit, kind)

    async def tags(self, reference: str, credentials: Credentials | None) -> list[str]:
        """All tags that a repository has at its registry."""
        wanted = references.parse(reference)
        if wanted.tag or wanted.digest:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        async with Repository(wanted, rules=self._rules, credentials=credentials, clock=self._clock) as repository:
            return await repository.tags()

    async def resolve(self, reference: str, credentials: Credentials | None) -> str:
        """The digest of what a tag stands for at its registry, or a mirror of that."""
        wanted = references.parse(reference).with_default_tag()
        if wanted.digest:
            return wanted.digest
        async with places(wanted, rules=self._rules, credentials=credentials, clock=self._clock) as found:
            return await found.digest(wanted.tag)

    async def check_login(self, registry: str, credentials: Credentials) -> str:
        """As login.check."""
        return await login.check(registry, credentials, self._rules)

    async def search(self, term: str, *, limit: int, credentials: Credentials | None) -> Sequence[Hit]:
        """Repositories by a word, which follows the registry and a slash where it is not docker.io's."""
        first, slash, rest = term.partition("/")
        here = bool(slash) and (any(char in first for char in ".:") or first == "localhost")
        return await search.search(
            first if here else DEFAULT_DOMAIN,
            rest if here else term,
            limit=limit,
            rules=self._rules,
            credentials=credentials,
        )
