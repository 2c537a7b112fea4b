"""Obtain: the image of a task, from this host, from another node, or from its registry, in this order.

A service is resolved to a digest once, by the manager, so that all its tasks run the same bytes; here that digest
decides, and a tag that has moved on meanwhile does not. Tasks that need the same image at the same time wait for
one download. After a reboot of many hosts, those that hold an image may come back later than a task that needs it:
while the cluster cannot say who has it, it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

from agent.session import Source
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import DeadlineExceeded, NotFound, ShoalError, Unavailable
from shoal.model.assignment import Template
from shoal.model.image import Image
from shoal.reference import parse

log = logging.getLogger(__name__)

# For so long a task waits for nodes that may have its image: more than a host needs to boot and be in a session.
PATIENCE_S = 30.0

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class ImageStore(Protocol[S_contra]):
    """What this needs of `agent.image.images.Images`; S is its source of blobs."""

    async def get(self, reference: str) -> Image: ...
    async def fetch(self, reference: str, manifest_digest: str, sources: Sequence[S_contra]) -> Any: ...
    async def pull(self, reference: str) -> Any: ...


class Obtain(Generic[S]):
    """`locate` asks a manager who holds an image; `dial` makes sources of blobs from such nodes."""

    def __init__(
        self,
        images: ImageStore[S],
        *,
        locate: Callable[[str, str], Awaitable[list[Source]]],
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
        reference = template.spec.container.image
        digest = template.image_digest
        until = self._clock.monotonic() + PATIENCE_S
        backoff = Backoff(0.5, 4)
        turn = self._turns.setdefault(f"{reference}@{digest}", asyncio.Lock())
        while True:
            try:
                async with turn:
                    return await self._get(reference, digest)
            except Unavailable as error:
                if self._clock.monotonic() >= until:
                    raise NotFound(str(error)) from error
            await self._clock.sleep(backoff.next())

    async def from_nodes(self, reference: str) -> str:
        """How to name an image that another node had, and this one has now. Raises NotFound where none has it, and
        Unavailable where nobody can say."""
        async with self._turns.setdefault(f"{reference}@", asyncio.Lock()):
            return pinned(reference, await self._from_peers(reference, ""))

    async def _get(self, reference: str, digest: str) -> str:
        """One try. Raises NotFound, or Unavailable where the cluster may know better soon."""
        if (here := await self._here(reference, digest)) is not None:
            return here
        failure: type[ShoalError] = NotFound
        tried = [f"no image {reference} on this node"]
        for way in (self._from_peers, self._from_registry):
            try:
                found = await way(reference, digest)
            except ShoalError as error:
                tried.append(str(error))
                if way == self._from_peers and isinstance(error, (Unavailable, DeadlineExceeded)):
                    failure = Unavailable
                continue
            if (here := await self._here(reference, found)) is not None:
                return here
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

    async def _from_peers(self, reference: str, digest: str) -> str:
        """The digest of what is here now: an image that comes from another node has no name but this."""
        found = await self._locate(parse(reference).with_default_tag().canonical, digest)
        if not found:
            raise NotFound("no other node has it")
        # Nodes may hold different images by the same tag: those that agree with the first are asked.
        digest = digest or found[0].manifest_digest
        same = [source for source in found if source.manifest_digest == digest]
        async with self._dial(same) as sources:
            await self._images.fetch(reference, digest, sources)
        log.info("image %s fetched from nodes=%s", reference, ",".join(source.node_id for source in same))
        return digest

    async def _from_registry(self, reference: str, digest: str) -> str:
        await self._images.pull(pinned(reference, digest))
        log.info("image %s pulled", reference)
        return digest


def pinned(reference: str, digest: str) -> str:
    """`reference` by digest: "web:1" becomes "web@sha256:…"."""
    if not digest:
        return reference
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"
