"""Restore: the first thing a starting agent does with its containers. `adopt` decides, this carries it out.

Afterwards the register, the disk, the runtime and the network agree: what runs is watched, what ended is settled,
what nobody knows is gone.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from agent.container.adopt import Verdict, plan
from agent.container.amendment import Amender
from agent.container.held import Held
from agent.container.lifecycle import LOST, Lifecycle, Room
from agent.network.networks import Networks
from agent.runtime.run import Exit, Started
from shoal.errors import Conflict, ShoalError
from shoal.model.container import ContainerState

log = logging.getLogger(__name__)


async def restore(room: Room, lifecycle: Lifecycle, amender: Amender, networks: Networks, *, boot_id: str) -> None:
    """Call once, before anything else uses the room."""
    loaded = await asyncio.to_thread(room.records.load)
    known = await room.runtime.list()
    planned = plan(loaded, known, boot_id=boot_id, lost=LOST)
    held = [Held(record, state) for record, state in loaded]
    for each in held:
        _register(room, each)
    await networks.adopt({each.id for each in held if planned.verdicts[each.id] == Verdict.ADOPT})
    for orphan in planned.orphans:
        log.warning("container %s is nobody's: removed", orphan[:12])
        await room.runtime.delete(orphan)
    for each in held:
        await _carry_out(
            room,
            lifecycle,
            each,
            verdict=planned.verdicts[each.id],
            found=known.get(each.id),
            boot_id=boot_id,
        )
    for each in held:
        if planned.verdicts[each.id] == Verdict.ADOPT:
            await _make_true(room, amender, networks, each)


def _register(room: Room, held: Held) -> None:
    try:
        room.register.reserve(held.name, held.id)
    except Conflict:  # a crash within a removal and a new creation; ids never clash
        container = msgspec.structs.replace(held.record.container, name=f"{held.name}-{held.id[:12]}")
        held.record = msgspec.structs.replace(held.record, container=container)
        room.register.reserve(held.name, held.id)
    room.register.add(held)


async def _carry_out(
    room: Room, lifecycle: Lifecycle, held: Held, *, verdict: Verdict, found: Started | Exit | None, boot_id: str
) -> None:
    if found is not None and verdict not in (Verdict.ADOPT, Verdict.SETTLE):
        await room.runtime.delete(held.id)
    if verdict == Verdict.ADOPT and isinstance(found, Started):
        _adopt(lifecycle, held, found, boot_id)
    elif verdict == Verdict.SETTLE and isinstance(found, Exit):
        lifecycle.settle(held, found)
    elif verdict == Verdict.END:
        now = room.clock.now_ns()
        lifecycle.settle(held, Exit(code=LOST, oom_killed=False, finished_at_ns=now, known=False))
    elif verdict == Verdict.REVIVE:
        lifecycle.revive(held)
    elif verdict == Verdict.REMOVE:
        async with held.lock:
            await lifecycle.destroy(held, volumes=True)


def _adopt(lifecycle: Lifecycle, held: Held, found: Started, boot_id: str) -> None:
    """It runs; its state was written just before it did, or is of the run before if that failed."""
    status = held.state.status
    paused = status.state == ContainerState.PAUSED
    status = msgspec.structs.replace(
        status,
        state=ContainerState.PAUSED if paused else ContainerState.RUNNING,
        pid=found.pid,
        started_at_ns=found.started_at_ns,
    )
    held.state = msgspec.structs.replace(held.state, status=status, boot_id=boot_id)
    lifecycle.adopt(held)


async def _make_true(room: Room, amender: Amender, networks: Networks, held: Held) -> None:
    """What its record says of a running container may not be done yet: its limits, its name, its being paused."""
    try:
        async with held.lock:
            if held.record.amending:
                await amender.enforce(held)
            await networks.rename(held.id, held.name)
            if held.state.status.state == ContainerState.PAUSED:
                await room.runtime.pause(held.id)
            else:
                await room.runtime.resume(held.id)
    except ShoalError as error:  # it has just ended, or the kernel refuses a limit that it took before
        log.warning("container %s is not as its record says: %s", held.name, error)
