"""Job: what one build is asked for, as typed values, and what it is worked on with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from agent.build.cache import Cache
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
from shoal.reference import Reference

Login = Callable[[str], Awaitable[Credentials | None]]


async def nobody(_image: str) -> Credentials | None:
    """Images that are for all."""
    return None


class Job(msgspec.Struct, frozen=True):
    """`epoch`: SOURCE_DATE_EPOCH, the second that nothing in the image is younger than. `login` gives
    the credentials for an image; `debug`: a command that fails leaves an image; `ssh`: the
    SSH agents that commands may ask, by id; `tar` takes the files of what was built, and no image is made then."""

    dockerfile: str
    name: str
    tree: Tree
    target: str = ""
    arguments: dict[str, str] = {}
    labels: dict[str, str] = {}
    tags: tuple[Reference, ...] = ()
    no_cache: bool = False
    pull: bool = False
    platform: str = ""
    setting: Setting = Setting()
    secrets: dict[str, bytes] = {}
    epoch: int | None = None
    debug: bool = False
    tar: Callable[[bytes], Awaitable[None]] | None = None
    login: Login = nobody
    ssh: dict[str, OpenLine] = {}


class Tools(msgspec.Struct, frozen=True):
    """`mounts` holds what cache mounts keep; `secret` is in memory alone."""

    images: Images
    cache: Cache
    contexts: Contexts
    runner: Runner
    clock: Clock
    mounts: Path
    secret: Path


class Solved(msgspec.Struct, frozen=True):
    """What a stage came to. `base` is the image that it stands on, through other stages too."""

    state: State
    layers: tuple[Layer, ...]
    made: tuple[Making, ...]
    base: Document | None

    @property
    def below(self) -> tuple[str, ...]:
        """Its chain ids, bottom first."""
        return tuple(each.chain_id for each in self.layers)
