"""Deposits: what lies in a registry like an image and is none: layers, and a configuration of a kind of its own. Here
is how one is found; `push` sends it.

An image is found as well: whoever looks for a deposit may find what it wants in an image's configuration.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from agent.image import manifest as manifests
from agent.image import platform as platforms
from agent.image.download import read_document
from agent.image.manifest import Descriptor, Index
from agent.image.source import BlobSource
from agent.registry import media
from agent.registry.auth import Credentials
from agent.registry.places import places
from agent.registry.rules import Rules
from shoal.clock import Clock
from shoal.errors import InvalidArgument
from shoal.reference import Reference


class Deposit(msgspec.Struct, frozen=True):
    """What is to be sent. `configured` writes the configuration, which may speak of the layers as they leave."""

    kind: str
    layers: tuple[Descriptor, ...]
    configured: Callable[[Sequence[Descriptor]], bytes]


class Found(msgspec.Struct, frozen=True):
    """What a registry has. `kind` is the media type of `config`, `is_image` that it is an image's; `sources` have the
    layers."""

    kind: str
    is_image: bool
    config: bytes
    layers: tuple[Descriptor, ...]
    sources: tuple[BlobSource, ...]


class Deposits:
    def __init__(self, rules: Rules, *, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    @asynccontextmanager
    async def open(self, reference: Reference, credentials: Credentials | None) -> AsyncIterator[Found]:
        """What a name stands for, of several platforms that of this host. The connections to its layers stay open
        while the block runs. Raises NotFound in docker's words."""
        async with places(reference, rules=self._rules, credentials=credentials, clock=self._clock) as at:
            data, media_type = await at.manifest(reference.digest or reference.tag)
            found = manifests.parse_any(data, media_type=media_type)
            if isinstance(found, Index):
                odd = next((each for each in found.manifests if each.media_type not in media.ACCEPTED), None)
                if odd is not None:  # an index of anything but manifests is no image; its last member says what it is
                    kind = found.manifests[-1].media_type
                    yield Found(kind, is_image=False, config=b"", layers=(), sources=())
                    return
                chosen = manifests.choose(found, platforms.host(), name=reference.familiar)
                data, _ = await read_document(at.all, chosen.digest)
                found = manifests.parse_any(data, media_type=chosen.media_type)
                if isinstance(found, Index):
                    raise InvalidArgument(f"{reference.familiar} is an index inside an index")
            config, _ = await read_document(at.all, found.config.digest)
            yield Found(found.config.media_type, found.is_image, config, found.layers, at.all)
