"""Lifecycle: how a container passes from created to running, to its end, and perhaps to running again.

Every passage happens under the container's lock and ends with its state saved. One task per running container
waits for its exit and does what `restart` decides. `launch` does the start itself; `agent.container.ending` is
what people do to a running one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from agent.container import restart
from agent.container.execution import Execution
from agent.container.held import Held
from agent.container.launch import NO_SIZE, Launcher, Size
from agent.container.prober import Prober
from agent.container.record import Records, State
from agent.container.register import Register
from agent.container.runtimes import Runtimes
from agent.kernel.syncs import Syncs
from agent.runtime.run import Exit
from agent.runtime.runtime import Runtime
from agent.volume.volumes import Volumes
from shoal.clock import Clock
from shoal.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    NotFound,
    SettingNotFound,
    ShoalError,
    Unavailable,
)
from shoal.model.container import ContainerState, ContainerStatus, MountType
from shoal.model.event import Event, EventKind, Tell
from shoal.model.health import Health, HealthState
from shoal.model.network import Address, Port
from shoal.tasks import Group, Lasting

log = logging.getLogger(__name__)

# Docker's code of a container that was found dead: nobody saw how it ended.
LOST = 255
# Its code of one that never started because of something that its runtime did not say.
_NOT_STARTED = 128
_BY_THE_RUNTIME = (CommandNotExecutable, CommandNotFound, SettingNotFound)
_KEEPER_WAIT_S = 1.0


class Room(msgspec.Struct, frozen=True):
    """What the parts of this room share."""

    records: Records
    syncs: Syncs
    register: Register
    runtime: Runtime
    volumes: Volumes
    clock: Clock
    chance: Callable[[], float]
    group: Group
    lasting: Lasting
    tell: Tell
    runtimes: Runtimes = Runtimes()


class Lifecycle:
    def __init__(self, room: Room, launcher: Launcher, execution: Execution) -> None:
        self._room = room
        self._launcher = launcher
        self._prober = Prober(execution.begin, self._judged, room.clock)
        self._discarded = self._emptying = False

    async def start(self, held: Held, size: Size) -> None:
        """Start it by hand; one that runs is left alone. Call with the lock.

        Raises StartFailed and its kin, or what stands in the way; the container then stays, with the error in its
        status, unless it is one that goes when it ends.
        """
        held.check_there()
        state = held.state.status.state
        if state == ContainerState.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        if state == ContainerState.RUNNING:
            return
        held.unwatch()
        held.state = msgspec.structs.replace(held.state, stopped=False, attempts=0, delay_ns=0, returning=False)
        try:
            await self._launch(held, size)
        except ShoalError as error:
            await self._not_started(held, error)
            raise

    def revive(self, held: Held) -> None:
        """Start it again because its policy says so, after the agent or its host was down."""
        status = msgspec.structs.replace(held.state.status, state=ContainerState.RESTARTING, pid=0)
        held.state = msgspec.structs.replace(held.state, status=status, stopped=False)
        held.watcher = self._spawn(held, self._revive(held, 0.0))

    def settle(self, held: Held, exit: Exit) -> None:
        """Do what is to be done about an exit that nobody waited for."""
        held.watcher = self._spawn(held, self._settle(held, exit))

    def adopt(self, held: Held) -> None:
        """Wait for the end of a container that runs already."""
        held.watcher = self._spawn(held, self._watch(held))
        if held.record.container.health.test:
            held.prober = self._spawn(held, self._prober.watch(held))

    def _spawn(self, held: Held, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._room.group.spawn(f"container {held.id[:12]}", _contained(held, work))

    async def change(self, held: Held, **fields: Any) -> None:
        """Set these fields of its status and save it. Call with the lock."""
        status = msgspec.structs.replace(held.state.status, **fields)
        held.state = msgspec.structs.replace(held.state, status=status)
        await self.save(held, held.state)

    async def save(self, held: Held, state: State) -> None:
        """Write `state` down. A full disk must not keep anybody from stopping what fills it, so a failure is only
        logged: what runs is found again without this file."""
        try:
            if held.revives:
                await asyncio.to_thread(self._room.records.save_state, held.id, state, durable=True)
            else:
                self._room.records.save_state(held.id, state, durable=False)
        except (ShoalError, OSError) as error:
            log.error("state of container %s is not saved: %s", held.name, error)

    def publish(self, held: Held, action: str, **attributes: str) -> None:
        """Tell everybody what has just happened to it, and what else is known of that."""
        spec = held.record.container.spec
        known = {**spec.labels, "image": spec.image, "name": held.name, **attributes}
        self._room.tell(Event(kind=EventKind.CONTAINER, action=action, id=held.id, attributes=known))

    async def destroy(self, held: Held, *, volumes: bool) -> None:
        """Remove a container that does not run, and its anonymous volumes with `volumes`. Call with the lock."""
        held.unwatch()
        await self._launcher.clear(held)
        if volumes:
            await self._remove_volumes(held)
        self._room.records.discard(held.id)
        self._room.register.drop(held)
        self.publish(held, "destroy")
        held.tell_removal()
        self._discarded = True
        if not self._emptying:
            self._emptying = True
            self._room.group.spawn("empty trash", self._empty_trash())

    async def _empty_trash(self) -> None:
        """One at a time: what is discarded meanwhile goes with the next round."""
        while self._discarded:
            self._discarded = False
            await asyncio.to_thread(self._room.records.empty_trash)
        self._emptying = False

    async def _release_volumes(self, held: Held) -> None:
        """It does not run any more: volumes that were mounted for it and nobody else are not needed."""
        for mount in held.record.container.mounts:
            if mount.type == MountType.VOLUME:
                try:
                    await self._room.volumes.release(
                        mount.source,
                        held.id,
                        lambda name=mount.source: self._room.register.volume_users(  # type: ignore[misc]
                            name, but=held.id, alive=True
                        ),
                    )
                except OSError as error:
                    log.warning("volume %s of container %s stays mounted: %s", mount.source, held.name, error)

    async def _remove_volumes(self, held: Held) -> None:
        """Before the record goes: a crash in between leaves a container to remove again, not volumes of nobody."""
        for mount in held.record.container.mounts:
            if mount.type != MountType.VOLUME or self._room.register.volume_users(mount.source, but=held.id):
                continue
            try:
                if self._room.volumes.get(mount.source).anonymous:
                    await self._room.volumes.remove(mount.source, force=True)
            except NotFound:
                continue
            except (ShoalError, OSError) as error:
                log.warning("volume %s of container %s stays: %s", mount.source, held.name, error)

    async def _launch(self, held: Held, size: Size) -> None:
        """Run it. Written down before it runs, and not again: who finds it running asks the runtime for the rest."""
        running = held.state

        async def note(addresses: tuple[Address, ...], ports: tuple[Port, ...]) -> None:
            nonlocal running
            status = ContainerStatus(
                state=ContainerState.RUNNING,
                started_at_ns=self._room.clock.now_ns(),
                finished_at_ns=held.state.status.finished_at_ns,
                restart_count=held.state.attempts,
                addresses=addresses,
                ports=ports,
                health=Health(HealthState.STARTING) if held.record.container.health.test else Health(),
            )
            running = msgspec.structs.replace(
                held.state, status=status, boot_id=self._launcher.boot_id, returning=False
            )
            await self.save(held, running)

        launched = await self._launcher.launch(held, size, note)
        status = msgspec.structs.replace(running.status, pid=launched.pid, started_at_ns=launched.started_at_ns)
        held.state = msgspec.structs.replace(running, status=status)
        self.adopt(held)
        self.publish(held, "start")
        for each in self._room.register:
            if each.alive and each.record.container.links:
                self._launcher.relink(each, held)

    async def _not_started(self, held: Held, error: ShoalError) -> None:
        before = held.state.status
        await self.change(
            held,
            state=ContainerState.EXITED if before.started_at_ns else ContainerState.CREATED,
            pid=0,
            exit_code=_code_of(error),
            error=error.message,
        )
        await self._release_volumes(held)
        if held.auto_remove:
            await self.destroy(held, volumes=True)
        else:
            held.tell_exit()

    async def _watch(self, held: Held) -> None:
        await self._settle(held, await self._exit(held))

    async def _settle(self, held: Held, exit: Exit) -> None:
        async with held.lock:
            delay_s = await self._ended(held, exit)
        if delay_s is not None:
            await self._revive(held, delay_s)

    async def _exit(self, held: Held) -> Exit:
        while True:
            try:
                return await self._room.runtime.wait(held.id)
            except NotFound:
                return Exit(code=LOST, oom_killed=False, finished_at_ns=self._room.clock.now_ns(), known=False)
            except (Unavailable, TimeoutError) as error:
                log.warning("container %s: waiting for its end: %s", held.name, error)
                await self._room.clock.sleep(_KEEPER_WAIT_S)

    async def _ended(self, held: Held, exit: Exit, *, error: str = "") -> float | None:
        """Settle an exit; the seconds until it is to run again, or None. Call with the lock."""
        held.unprobe()
        returning = held.state.returning
        decision = restart.after_exit(held.record.container.restart, self._run_of(held, exit))
        held.state = msgspec.structs.replace(held.state, attempts=decision.attempts, delay_ns=decision.delay_ns)
        await self.change(
            held,
            state=ContainerState.RESTARTING if decision.restart or returning else ContainerState.EXITED,
            pid=0,
            exit_code=exit.code,
            oom_killed=exit.oom_killed,
            error=error,
            finished_at_ns=exit.finished_at_ns,
            addresses=(),
            ports=(),
        )
        if exit.oom_killed:
            self.publish(held, "oom")
        ran_s = max(0, exit.finished_at_ns - held.state.status.started_at_ns) // 10**9
        self.publish(held, "die", exitCode=str(exit.code), execDuration=str(ran_s))
        # From here on this task is nobody's to cancel unless it waits for a restart.
        watcher, held.watcher = held.watcher, None
        await self._release_volumes(held)
        if held.auto_remove and not returning:
            await self.destroy(held, volumes=True)
            return None
        await self._launcher.clear(held)
        held.tell_exit()
        if not decision.restart:
            return None
        held.watcher = watcher
        return decision.delay_ns / 1e9

    async def _judged(self, held: Held, health: Health) -> None:
        """One more result of its health check. Only a change is worth a write."""
        async with held.lock:
            before = held.state.status
            if before.state != ContainerState.RUNNING:
                return
            if before.health.state == health.state:
                status = msgspec.structs.replace(before, health=health)
                held.state = msgspec.structs.replace(held.state, status=status)
                return
            await self.change(held, health=health)
            self.publish(held, f"health_status: {health.state.name.lower()}")
            held.tell_health()

    def _run_of(self, held: Held, exit: Exit) -> restart.Ended:
        return restart.Ended(
            exit_code=exit.code,
            stopped=held.state.stopped,
            ran_ns=max(0, exit.finished_at_ns - held.state.status.started_at_ns),
            attempts=held.state.attempts,
            delay_ns=held.state.delay_ns,
        )

    async def _revive(self, held: Held, delay_s: float) -> None:
        """Run it again after the wait. A start that fails counts as a run that failed at once."""
        waiting: float | None = delay_s
        while waiting is not None:
            await self._room.clock.sleep(waiting)
            async with held.lock:
                if held.gone or held.state.status.state != ContainerState.RESTARTING:
                    return
                try:
                    await self._launch(held, NO_SIZE)
                except ShoalError as error:
                    log.warning("container %s does not start again: %s", held.name, error)
                    waiting = await self._failed_again(held, error)
                    continue
                return

    async def _failed_again(self, held: Held, error: ShoalError) -> float | None:
        now = self._room.clock.now_ns()
        status = msgspec.structs.replace(held.state.status, started_at_ns=now)
        held.state = msgspec.structs.replace(held.state, status=status)
        exit = Exit(code=_code_of(error), oom_killed=False, finished_at_ns=now)
        return await self._ended(held, exit, error=error.message)


async def _contained(held: Held, work: Coroutine[Any, Any, None]) -> None:
    """What goes wrong with one container must not end the task group of all."""
    try:
        await work
    except Exception:  # the boundary of one container
        log.exception("container %s is not watched any more", held.name)


def _code_of(error: ShoalError) -> int:
    """What `inspect` shows of a container that did not start."""
    return error.run_code if isinstance(error, _BY_THE_RUNTIME) else _NOT_STARTED
