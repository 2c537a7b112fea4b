"""Obtain: the image of a task, from this host, from another node, or from its registry, in this order.

A service is resolved to a digest once, by the manager, so that all its tasks run the same bytes; here that digest
decides, and a tag that has moved on meanwhile does not. Tasks that need the same image at the same time wait for
one download, and so do nodes: the manager sends one of them to the registry, which says that it is on the way as long
as bytes come, and the others have it from that one. After a reboot of many hosts, those that hold an image may come
back later than a task that needs it: while the cluster cannot say who has it, it is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

from agent.image.source import Progress, Report
from agent.located import Located, Source
from agent.registry.auth import Credentials
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import DeadlineExceeded, NotFound, ShoalError, Unavailable
from shoal.model.assignment import Template
from shoal.model.image import Image
from shoal.reference import parse
from shoal.tasks import first_of

log = logging.getLogger(__name__)

# For so long a task waits for nodes that may have its image: more than a host needs to boot and be in a session.
PATIENCE_S = 30.0
# How often a manager hears that this node brings an image still; it forgets that after three times as long.
ON_THE_WAY_S = 10.0

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class ImageStore(Protocol[S_contra]):
    """What this needs of `agent.image.images.Images`; S is its source of blobs."""

    async def get(self, reference: str) -> Image: ...
    async def fetch(self, reference: str, manifest_digest: str, sources: Sequence[S_contra]) -> Any: ...
    async def pull(self, reference: str, *, credentials: Credentials | None, progress: Report) -> Any: ...


class Locate(Protocol):
    """As `Session.locate`."""

    async def __call__(
        self, reference: str, manifest_digest: str, service_id: str = "", *, failed: bool = False
    ) -> Located: ...


class _Coming(Exception):
    """Another node is on its way to the registry."""


class Obtain(Generic[S]):
    """`locate` asks a manager who holds an image; `dial` makes sources of blobs from such nodes."""

    def __init__(
        self,
        images: ImageStore[S],
        *,
        locate: Locate,
        dial: Callable[[Sequence[Source]], AbstractAsyncContextManager[Sequence[S]]],
        clock: Clock,
    ) -> None:
        self._images = images
        self._locate = locate
        self._dial = dial
        self._clock = clock
        self._turns: dict[str, asyncio.Lock] = {}

    async def __call__(self, template: Template) -> str:
        """The reference to create the task's container from, once its image is here.

        Raises NotFound with what every place that was tried said: at once where that is final, after 30 s where nodes
        that may have it did not come.
        """
        turn = self._turns.setdefault(f"{template.spec.container.image}@{template.image_digest}", asyncio.Lock())
        until = self._clock.monotonic() + PATIENCE_S
        backoff = Backoff(0.5, 4)
        while True:
            try:
                async with turn:
                    return await self._get(template)
            except _Coming:
                until = self._clock.monotonic() + PATIENCE_S
                backoff.reset()
            except Unavailable as error:
                if self._clock.monotonic() >= until:
                    raise NotFound(str(error)) from error
            await self._clock.sleep(backoff.next())

    async def from_nodes(self, reference: str) -> str:
        """How to name an image that another node had, and this one has now. Raises NotFound where none has it, and
        Unavailable where nobody can say."""
        async with self._turns.setdefault(f"{reference}@", asyncio.Lock()):
            return pinned(reference, await self._fetch(reference, "", await self._locate(_canonical(reference), "")))

    async def _get(self, template: Template) -> str:
        """One try. Raises NotFound, or Unavailable where the cluster may know better soon, or _Coming."""
        reference, digest = template.spec.container.image, template.image_digest
        if (here := await self._here(reference, digest)) is not None:
            return here
        failure: type[ShoalError] = NotFound
        tried = [f"no image {reference} on this node"]
        located = Located()
        try:
            located = await self._locate(_canonical(reference), digest, template.service_id)
            if located.coming:
                raise _Coming
            if located.doubt:
                raise Unavailable(located.doubt)
            if (here := await self._here(reference, await self._fetch(reference, digest, located))) is not None:
                return here
        except ShoalError as error:
            tried.append(str(error))
            failure = Unavailable if isinstance(error, (Unavailable, DeadlineExceeded)) else NotFound
        try:
            await self._bring(template, located)
            if (here := await self._here(reference, digest)) is not None:
                return here
        except ShoalError as error:
            tried.append(str(error))
        raise failure(f"No such image: {reference}: " + "; ".join(tried))

    async def _here(self, reference: str, digest: str) -> str | None:
        """How to name the image so that it is surely the one meant, if this host has it."""
        for name in (reference, pinned(reference, digest)):
            try:
                image = await self._images.get(name)
            except NotFound:
                continue
            if not digest or image.manifest_digest == digest:
                return name
        return None

    async def _fetch(self, reference: str, digest: str, located: Located) -> str:
        """The digest of what is here now: an image that comes from another node has no name but this."""
        found = located.sources
        if not found:
            raise NotFound("no other node has it")
        # Nodes may hold different images by the same tag: those that agree with the first are asked.
        digest = digest or found[0].manifest_digest
        same = [source for source in found if source.manifest_digest == digest]
        async with self._dial(same) as sources:
            await self._images.fetch(reference, digest, sources)
        log.info("image %s fetched from nodes=%s", reference, ",".join(source.node_id for source in same))
        return digest

    async def _bring(self, template: Template, located: Located) -> None:
        """From the registry; while it comes, the manager that sent this node hears so."""
        reference, digest = template.spec.container.image, template.image_digest
        errand = _Errand(self._locate, _canonical(reference), digest, template.service_id, self._clock)
        pull = self._images.pull(pinned(reference, digest), credentials=located.credentials, progress=errand.came)
        if not located.bring:
            await pull
            return
        try:
            await first_of(pull, errand.tell())
        except BaseException:
            await errand.fail()
            raise
        log.info("image %s pulled", reference)


class _Errand:
    """A node's way to the registry, as its manager sees it."""

    def __init__(self, locate: Locate, reference: str, digest: str, service_id: str, clock: Clock) -> None:
        self._ask = functools.partial(locate, reference, digest, service_id)
        self._clock = clock
        self._moved = False

    def came(self, _: Progress) -> None:
        self._moved = True

    async def tell(self) -> None:
        """Say that this node is on the way, as long as bytes come: of one that stalls others need not wait."""
        while True:
            await self._clock.sleep(ON_THE_WAY_S)
            if self._moved:
                self._moved = False
                with contextlib.suppress(ShoalError):
                    await self._ask()

    async def fail(self) -> None:
        """Let another one go."""
        with contextlib.suppress(ShoalError):
            await self._ask(failed=True)


def _canonical(reference: str) -> str:
    return parse(reference).with_default_tag().canonical


def pinned(reference: str, digest: str) -> str:
    """`reference` by digest: "web:1" becomes "web@sha256:…"."""
    if not digest:
        return reference
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"
