"""Listing: which containers `ps` shows, and in which order. `filter` says which match."""

from __future__ import annotations

from collections.abc import Sequence

from agent.container.filter import Known, check_filter, selected, shows_stopped
from agent.container.register import Register
from agent.image.images import Images
from shoal.errors import NotFound
from shoal.model.container import Container


async def listed(
    register: Register, images: Images, *, all: bool, last: int, filters: Sequence[tuple[str, str]]
) -> list[Container]:
    """Newest first. `last` counts containers in any state, as `filters` on a state do.

    Raises InvalidArgument for a filter that is not one, NotFound for a container that one names.
    """
    for key, value in filters:
        check_filter(key, value)
    held = sorted(register, key=lambda each: (-each.record.container.meta.created_at_ns, each.id))
    shown = [each for each in held if all or last or shows_stopped(filters) or each.busy]
    found = selected((each.container for each in shown), filters, await _known(register, images, filters))
    return found[:last] if last else found


async def _known(register: Register, images: Images, filters: Sequence[tuple[str, str]]) -> Known:
    """What the values of these filters stand for. Raises NotFound for an unknown container."""
    return Known(
        ancestors={value: await _descendants(images, value) for key, value in filters if key == "ancestor"},
        created_at_ns={
            value: register.find(value).record.container.meta.created_at_ns
            for key, value in filters
            if key in ("before", "since")
        },
    )


async def _descendants(images: Images, image: str) -> frozenset[str]:
    """Ids of this image and those that are built on it."""
    try:
        base = await images.get(image)
    except NotFound:
        return frozenset()
    depth = len(base.diff_ids)
    return frozenset(each.meta.id for each in await images.list() if each.diff_ids[:depth] == base.diff_ids) | {
        base.meta.id
    }
