"""What builds leave on the disk for those that follow: the layers of steps (`cache`), the files of contexts (`context`)
and what cache mounts keep (`cachemount`). `system df` shows it, `builder prune` frees it."""

from __future__ import annotations

import asyncio

import msgspec

from agent.build.job import Tools
from shoal.model.base import Value

# Docker's words.
_STEP, _CONTEXT, _MOUNT = "regular", "source.local", "exec.cachemount"


class Kept(Value, frozen=True):
    """`kind` in docker's words. `shared`: an image has that layer too."""

    id: str
    kind: str
    title: str
    size_bytes: int
    made_at_ns: int
    used_at_ns: int
    shared: bool = False


class Pruned(msgspec.Struct, frozen=True):
    """`titles` of what was forgotten."""

    titles: tuple[str, ...]
    freed_bytes: int


async def usage(tools: Tools) -> list[Kept]:
    """All of it, the last used first."""
    steps = [
        Kept(
            id=key,
            kind=_STEP,
            title=each.title,
            size_bytes=each.layer.size_bytes,
            made_at_ns=each.made_at_ns,
            used_at_ns=each.used_at_ns,
            shared=tools.images.workbench.in_image(each.layer),
        )
        for key, each in tools.cache.entries().items()
    ]

    def files() -> list[Kept]:
        contexts = [
            Kept(each.name, _CONTEXT, "files of a context", each.size_bytes, each.used_at_ns, each.used_at_ns)
            for each in tools.contexts.measured()
        ]
        return contexts + [
            Kept(each.name, _MOUNT, _mounted(each.target), each.size_bytes, each.used_at_ns, each.used_at_ns)
            for each in tools.mounts.measured()
        ]

    return sorted(steps + await asyncio.to_thread(files), key=lambda each: -each.used_at_ns)


async def prune(tools: Tools, *, unused_s: int) -> Pruned:
    """Forget what was not used for so long. What builds use that run now stays until they end."""
    before_ns = tools.clock.now_ns() - unused_s * 10**9
    gone = await tools.cache.prune((), before_ns=before_ns)
    await tools.cache.settle(now_ns=tools.clock.now_ns())
    contexts = await asyncio.to_thread(tools.contexts.prune, before_ns=before_ns)
    mounts = await asyncio.to_thread(tools.mounts.prune, before_ns=before_ns)
    layers = {each.layer.chain_id: each.layer.size_bytes for each in gone}
    titles = (*(each.title for each in gone), *(_mounted(each.target) for each in mounts))
    return Pruned(titles, contexts + sum(each.size_bytes for each in mounts) + sum(layers.values()))


def _mounted(target: str) -> str:
    return f"cache mount {target}".rstrip()
