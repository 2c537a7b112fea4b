"""What earlier builds came to: a step's key → the layer that it made. One small file, replaced as a whole.

Only hints: the layers themselves are kept by the images' catalog, and an entry whose layer is gone is a miss. So the
file may be lost, or be older than what it speaks of, and no build comes out wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from agent.image.catalog import Layer
from agent.image.images import Images
from shoal.files import read_optional, write_atomic

log = logging.getLogger(__name__)
# What was not used for so long goes when another build ends.
_KEPT_NS = 14 * 24 * 3600 * 10**9


class Entry(msgspec.Struct, frozen=True):
    """`title`: the step, for people."""

    layer: Layer
    title: str
    made_at_ns: int
    used_at_ns: int


class _File(msgspec.Struct, frozen=True):
    entries: dict[str, Entry] = {}
    digests: dict[str, str] = {}


class Cache:
    """`digests`: what was found out of a content that is named by chain ids, by key."""

    def __init__(self, path: Path, images: Images) -> None:
        self._path = path
        self._images = images
        self._dirty = False
        self._settling = asyncio.Lock()
        try:
            found = msgspec.msgpack.decode(read_optional(path) or msgspec.msgpack.encode(_File()), type=_File)
        except msgspec.MsgspecError as error:
            log.warning("the cache of builds %s cannot be read and begins anew: %s", path, error)
            found = _File()
        self.digests = dict(found.digests)
        self._entries = {key: each for key, each in found.entries.items() if images.workbench.has(each.layer)}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, *, now_ns: int) -> Entry | None:
        found = self._entries.get(key)
        if found is None or not self._images.workbench.has(found.layer):
            return None
        found = self._entries[key] = msgspec.structs.replace(found, used_at_ns=now_ns)
        return found

    def entries(self) -> Mapping[str, Entry]:
        """By key, whose layers are still here."""
        return {key: each for key, each in self._entries.items() if self._images.workbench.has(each.layer)}

    def put(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry
        self._dirty = True

    def remember(self, key: str, digest: str) -> None:
        self.digests[key] = digest
        self._dirty = True

    def alone(self, key: str) -> AbstractAsyncContextManager[None]:
        """One at a time per key: a second build waits, and then finds the step done."""
        return self._images.fresh.alone(key)

    def taken(self, key: str) -> bool:
        """Whether somebody has it alone just now."""
        return self._images.fresh.taken(key)

    async def settle(self, *, now_ns: int) -> None:
        """After a build: keep the layers of what it came to, and let go of what nobody used for long. Only while the
        images are `working`."""
        async with self._settling:
            if self._dirty:
                self._dirty = False
                await self._settle(now_ns)

    async def _settle(self, now_ns: int) -> None:
        old = [key for key, each in self._entries.items() if now_ns - each.used_at_ns > _KEPT_NS]
        for key in old:
            del self._entries[key]
        layers = {each.layer.chain_id: each.layer for each in self._entries.values()}
        kept = self._images.workbench.kept()
        if fresh := [each for chain_id, each in layers.items() if chain_id not in kept]:
            await self._images.workbench.keep(fresh)
        if gone := kept.keys() - layers.keys():
            await self._images.workbench.drop(gone)
        data = msgspec.msgpack.encode(_File(self._entries, self.digests))
        await asyncio.to_thread(write_atomic, self._path, data, durable=False)

    async def prune(self, used: Collection[str], *, before_ns: int) -> list[Entry]:
        """Forget what was last used before then, apart from the chain ids in `used`; what went."""
        gone = {
            key: each
            for key, each in self._entries.items()
            if each.layer.chain_id not in used and each.used_at_ns < before_ns
        }
        for key in gone:
            del self._entries[key]
        self.digests.clear()
        self._dirty = True
        return list(gone.values())
