"""Job: what one build is asked for, as typed values, and what it is worked on with."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from agent.build.cache import Cache
from agent.build.cachemount import CacheMounts
from agent.build.carried import Carried, Carrier, Export
from agent.build.context import Contexts
from agent.build.forward import OpenLine
from agent.build.run import Runner, Setting
from agent.build.state import State
from agent.build.tree import Tree
from agent.image.catalog import Layer
from agent.image.document import Document
from agent.image.fresh import Making
from agent.image.images import Images
from agent.registry.auth import Credentials
from shoal.clock import Clock
from shoal.errors import NotFound
from shoal.reference import Reference

Login = Callable[[str], Awaitable[Credentials | None]]


async def nobody(_image: str) -> Credentials | None:
    """Images that are for all."""
    return None


class Output(enum.Enum):
    """What becomes of a build: an image on this host; or a tar of its files, an archive of the image, nothing."""

    IMAGE = "image"
    FILES = "tar"
    ARCHIVE = "archive"
    NOTHING = "none"


async def away(_piece: bytes) -> None:
    """For builds of which nothing goes out."""


class Job(msgspec.Struct, frozen=True):
    """`epoch`: SOURCE_DATE_EPOCH, the second that nothing in the image is younger than. `login` gives
    the credentials for an image; `debug`: a command that fails leaves an image; `ssh`: the
    SSH agents that commands may ask, by id; `take` gets what `output` says piece by piece; `carried` is what
    is known of earlier builds, `carrier` where the client keeps this one. `cache_from` and `cache_to`: the same in
    registries; `inline`: in the image itself. `no_cache` is for all steps, `no_cache_stages` for those of some stages,
    in small letters."""

    dockerfile: str
    name: str
    tree: Tree
    target: str = ""
    arguments: dict[str, str] = {}
    labels: dict[str, str] = {}
    tags: tuple[Reference, ...] = ()
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    platform: str = ""
    setting: Setting = Setting()
    secrets: dict[str, bytes] = {}
    epoch: int | None = None
    debug: bool = False
    output: Output = Output.IMAGE
    take: Callable[[bytes], Awaitable[None]] = away
    login: Login = nobody
    ssh: dict[str, OpenLine] = {}
    carried: tuple[Carried, ...] = ()
    carrier: Carrier | None = None
    cache_from: tuple[Reference, ...] = ()
    cache_to: Export | None = None
    inline: bool = False


# Has an image that another node of the cluster holds come here, and says what it is called here. Raises NotFound.
Bring = Callable[[str], Awaitable[str]]


async def nowhere(image: str) -> str:
    """For a host that is alone."""
    raise NotFound(f"no other node has {image}")


class Tools(msgspec.Struct, frozen=True):
    """`secret` is a folder in memory alone."""

    images: Images
    cache: Cache
    contexts: Contexts
    runner: Runner
    clock: Clock
    mounts: CacheMounts
    secret: Path
    bring: Bring = nowhere


class Solved(msgspec.Struct, frozen=True):
    """What a stage came to. `base` is the image that it stands on, through other stages too; `cached` is what the image
    is to say of the steps that made it (`published.inline`)."""

    state: State
    layers: tuple[Layer, ...]
    made: tuple[Making, ...]
    base: Document | None
    cached: dict[str, int] = {}

    @property
    def below(self) -> tuple[str, ...]:
        """Its chain ids, bottom first."""
        return tuple(each.chain_id for each in self.layers)
