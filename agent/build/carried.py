"""Carried: what earlier builds came to, on its way between hosts in a folder of the client's (`--cache-to`,
`--cache-from`), or by a registry (`published`): a list of steps, and the layers that they made, each by its digest.

A step's key says all that went into it, so it means the same on every host; what a layer holds is checked by its
digests when it comes. Whoever gives a list may say of any step what it made: as with docker, it is for the user to
trust it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec

from agent.build.cache import Entry
from agent.image.catalog import Layer
from agent.image.source import BlobSource
from shoal import digest as digests
from shoal.errors import InvalidArgument
from shoal.reference import Reference

_SCHEMA = 1


class Step(msgspec.Struct, frozen=True):
    """What a step made, and when; `title` is for people."""

    layer: Layer
    title: str
    made_at_ns: int


class _List(msgspec.Struct, frozen=True):
    schema: int
    steps: dict[str, Step]


class Carrier(msgspec.Struct, frozen=True):
    """The client, where it wants to keep what a build came to. `all`: of every stage, not only what the image has;
    `held` it has already. `take_list` gets the list, `take_blob` a digest and a piece of that content; nothing is its
    end."""

    all: bool
    held: frozenset[str]
    take_list: Callable[[bytes], Awaitable[None]]
    take_blob: Callable[[str, bytes], Awaitable[None]]


class Carried(msgspec.Struct, frozen=True):
    """Steps by key, and where their layers come from."""

    steps: Mapping[str, Step] = {}
    sources: Sequence[BlobSource] = ()


class Export(msgspec.Struct, frozen=True):
    """Where in a registry a build's steps go; `all` as with Carrier. `ignore_error`: the build does not fail for it."""

    reference: Reference
    all: bool
    compression: str = ""
    ignore_error: bool = False


def read(lists: Collection[bytes]) -> dict[str, Step]:
    """The steps of several lists; what an earlier one says counts. Raises InvalidArgument."""
    found: dict[str, Step] = {}
    for data in lists:
        try:
            steps = msgspec.json.decode(data, type=_List)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"a build cache cannot be read: {error}") from error
        if steps.schema != _SCHEMA:
            raise InvalidArgument(f"a build cache has schema {steps.schema}, this program knows {_SCHEMA}")
        for key, step in steps.steps.items():
            digests.check(step.layer.digest)
            digests.check(step.layer.diff_id)
            found.setdefault(key, step)
    return found


def write(entries: Mapping[str, Entry]) -> bytes:
    """The list of these steps, the same bytes for the same ones."""
    steps = {key: Step(each.layer, each.title, each.made_at_ns) for key, each in sorted(entries.items())}
    return msgspec.json.encode(_List(_SCHEMA, steps))
