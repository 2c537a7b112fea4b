"""Amendment: what can be changed of a container that is there: its name, its limits, its restart policy.

The record is saved before anything is done about it. A crash in between leaves a record that `restore` makes true:
it carries out limits that are still `amending`, and tells the network a name that it does not know yet.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from agent.container import host
from agent.container.bundle import resources
from agent.container.held import Held
from agent.container.isolation import check_tuning
from agent.container.lifecycle import Lifecycle, Room
from agent.container.settle import check_limits, check_restart
from agent.network.networks import Networks
from shoal.errors import Conflict, InvalidArgument, ShoalError
from shoal.model.base import Resources
from shoal.model.container import Container, RestartCondition, RestartPolicy, Tuning
from shoal.names import check_name


class Amender:
    def __init__(self, room: Room, lifecycle: Lifecycle, networks: Networks) -> None:
        self._room = room
        self._lifecycle = lifecycle
        self._networks = networks
        self._cpus = os.cpu_count() or 1

    async def rename(self, held: Held, name: str) -> None:
        """Raises InvalidArgument for a name that is none or its own, Conflict for one that is taken."""
        name = name.removeprefix("/")
        if not name:
            raise InvalidArgument("new name cannot be empty")
        check_name(name, "container")
        async with held.lock:
            held.check_there()
            if held.record.container.task_id:
                raise Conflict(
                    f"container {held.name} carries out a task, which finds it by its name",
                    hint="rename the service instead",
                )
            before = held.name
            if name == before:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            register = self._room.register
            register.reserve(name, held.id)
            try:
                await self.save(held, msgspec.structs.replace(held.record.container, name=name))
            except BaseException:
                register.release(name, held.id)
                raise
            register.release(before, held.id)
            await self._networks.rename(held.id, name)
            self._lifecycle.publish(held, "rename", oldName=before)

    async def update(self, held: Held, *, limits: Resources, tuning: Tuning, restart: RestartPolicy | None) -> None:
        """Zeros and None leave things as they are. A running container has its limits when this returns.

        Raises InvalidArgument, and Conflict for what the kernel refuses; then nothing has changed.
        """
        async with held.lock:
            held.check_there()
            before = held.record.container
            after = msgspec.structs.replace(
                before,
                limits=merged(before.limits, limits),
                tuning=tuned(before.tuning, tuning),
                restart=restart or before.restart,
            )
            check_limits(after.limits, self._cpus)
            check_tuning(after.tuning, after.limits, cpus=self._cpus)
            host.check_realtime(after.tuning)
            check_restart(after)
            enforced = held.alive and (after.limits, after.tuning) != (before.limits, before.tuning)
            await self.save(held, after, amending=enforced)
            if restart is not None and restart.condition != RestartCondition.NONE:
                await self._lifecycle.save(held, held.state)  # from now on it decides what a power cut leaves
            if enforced:
                try:
                    await self.enforce(held)
                except ShoalError:
                    await self.save(held, before)
                    raise
            self._lifecycle.publish(held, "update")

    async def enforce(self, held: Held) -> None:
        """Give a running container the limits of its record. Call with the lock."""
        container = held.record.container
        # A new weight of the container's would take the place of those that it has for single devices.
        weights = host.weighted(container.tuning.device_weights)
        await self._room.runtime.update(held.id, resources(container, weights=weights))
        await self.save(held, container)

    async def save(self, held: Held, container: Container, *, amending: bool = False) -> None:
        """Write the record down and hold it. Call with the lock."""
        record = msgspec.structs.replace(held.record, container=container, amending=amending)
        await asyncio.to_thread(self._room.records.save, record, durable=record.durable)
        held.record = record


def merged(before: Resources, wanted: Resources) -> Resources:
    """`before` with what `wanted` says: 0 says nothing, -1 takes the limit of processes away."""
    return Resources(
        nano_cpus=wanted.nano_cpus or before.nano_cpus,
        memory_bytes=wanted.memory_bytes or before.memory_bytes,
        pids=max(wanted.pids or before.pids, 0),
    )


def tuned(before: Tuning, wanted: Tuning) -> Tuning:
    """`before` with what `wanted` says: what is 0 or empty says nothing."""
    given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value}
    return msgspec.structs.replace(before, **given)
