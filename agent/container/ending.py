"""Ending: what people do to a running container: signal it, stop it, restart it, pause it, remove it.

Nothing here waits under the container's lock for its process to end, since the task that settles the exit
(`agent.container.lifecycle`) needs it; a second `kill` gets through while a `stop` is waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from agent.container.held import Ending, Held
from agent.container.launch import NO_SIZE
from agent.container.lifecycle import Lifecycle, Room
from shoal.defaults import STOP_GRACE_NS
from shoal.errors import Conflict, DeadlineExceeded, NotFound
from shoal.model.container import ContainerState
from shoal.signals import DEFAULT_STOP, KILL, signal_number

# A process that does not go after SIGKILL hangs in the kernel; the caller gets its terminal back.
_KILL_WAIT_S = 10.0


class Ender:
    def __init__(self, room: Room, lifecycle: Lifecycle) -> None:
        self._room = room
        self._lifecycle = lifecycle

    async def stop(self, held: Held, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Ask it to end, kill it after `timeout_s` (None: its own; -1: never). What does not run is left alone.

        Raises DeadlineExceeded if even SIGKILL does not end it.
        """
        number = signal_number(signal or held.record.stop_signal or DEFAULT_STOP)
        grace_s = _grace_s(held) if timeout_s is None else timeout_s
        exited = await self._ask(held, KILL if grace_s == 0 else number)
        if exited is None:
            return
        if not await self._ends(exited, None if grace_s < 0 else grace_s):
            await self._kill(held, exited)
        self._lifecycle.publish(held, "stop")

    async def restart(self, held: Held, *, timeout_s: int | None = None, signal: str = "") -> None:
        """End it as `stop` does and start it again; one that does not run is only started.

        Written down before it ends, so that after a crash in between it comes up again. Raises what starting raises.
        """
        async with held.lock:
            held.check_there()
            if held.alive:
                held.state = msgspec.structs.replace(held.state, returning=True)
                await self._lifecycle.save(held, held.state)
        try:
            await self.stop(held, timeout_s=timeout_s, signal=signal)
        except BaseException:
            held.state = msgspec.structs.replace(held.state, returning=False)
            await self._lifecycle.save(held, held.state)
            raise
        async with held.lock:
            await self._lifecycle.start(held, NO_SIZE)
            self._lifecycle.publish(held, "restart")

    async def _ask(self, held: Held, number: int) -> asyncio.Future[Ending] | None:
        """Send the signal as a stop by hand; what to wait for, or None if it does not run."""
        async with held.lock:
            if held.state.status.state == ContainerState.RESTARTING:
                await self._give_up(held)
            if not held.alive:
                return None
            await self._mark(held)
            exited = held.next_exit()
            await self._signal(held, number)
            self._lifecycle.publish(held, "kill", signal=str(number))
            await self._unfreeze(held)
        return exited

    async def kill(self, held: Held, signal: str = "") -> None:
        """Send a signal (empty: SIGKILL). SIGKILL and the stop signal count as a stop by hand: nothing revives it.

        Returns when the signal is sent, as docker does, except that SIGKILL waits for the end. Raises Conflict if
        it does not run.
        """
        number = signal_number(signal or "SIGKILL")
        stopping = number in (KILL, signal_number(held.record.stop_signal or DEFAULT_STOP))
        async with held.lock:
            if held.state.status.state == ContainerState.RESTARTING and stopping:
                await self._give_up(held)
                return
            if not held.alive:
                raise Conflict(f"Cannot kill container: {held.name}: container {held.id} is not running")
            if stopping:
                await self._mark(held)
            exited = held.next_exit()
            await self._signal(held, number)
            if stopping:
                await self._unfreeze(held)
            self._lifecycle.publish(held, "kill", signal=str(number))
        if number == KILL:
            await self._ends(exited, _KILL_WAIT_S)

    async def pause(self, held: Held) -> None:
        """Freeze it. Raises Conflict if it is not running or frozen already."""
        async with held.lock:
            if held.state.status.state == ContainerState.PAUSED:
                raise Conflict(f"Container {held.id} is already paused")
            if held.state.status.state != ContainerState.RUNNING:
                raise Conflict(f"Container {held.id} is not running")
            # Said before it is done: after a crash in between, `restore` freezes what is said to be frozen.
            await self._lifecycle.change(held, state=ContainerState.PAUSED)
            try:
                await self._room.runtime.pause(held.id)
            except BaseException:
                await self._lifecycle.change(held, state=ContainerState.RUNNING)
                raise
            self._lifecycle.publish(held, "pause")

    async def resume(self, held: Held) -> None:
        """Raises Conflict if it is not paused."""
        async with held.lock:
            if held.state.status.state != ContainerState.PAUSED:
                raise Conflict(f"Container {held.id} is not paused")
            await self._unfreeze(held)

    @contextlib.asynccontextmanager
    async def still(self, held: Held) -> AsyncIterator[None]:
        """Its processes stand still for as long as the block runs, if it runs. This is nobody's wish and in no record:
        an agent that dies meanwhile lets them go on when it starts."""
        async with held.lock:
            held.check_there()
            freezing = held.state.status.state == ContainerState.RUNNING
            if freezing:
                await self._room.runtime.pause(held.id)
        try:
            yield
        finally:
            if freezing:
                with contextlib.suppress(NotFound, Conflict):  # it ended meanwhile
                    await self._room.runtime.resume(held.id)

    async def remove(self, held: Held, *, force: bool, volumes: bool) -> None:
        """Raises Conflict for one that runs, unless `force`, which kills it."""
        if held.busy:
            if not force:
                doing = "restarting" if held.state.status.state == ContainerState.RESTARTING else "running"
                raise Conflict(
                    f'cannot remove container "{held.name}": container is {doing}:'
                    " stop the container before removing or force remove",
                    hint=f"run shoal stop {held.name}, or rm -f",
                )
            exited = await self._ask(held, KILL)
            if exited is not None:
                await self._kill(held, exited)
        async with held.lock:
            if held.gone:
                return
            if held.busy:
                raise Conflict(f'cannot remove container "{held.name}": it was started meanwhile')
            await self._lifecycle.destroy(held, volumes=volumes)

    async def _kill(self, held: Held, exited: asyncio.Future[Ending]) -> None:
        await self._signal(held, KILL)
        if not await self._ends(exited, _KILL_WAIT_S):
            raise DeadlineExceeded(
                f"tried to kill container {held.name}, but did not receive an exit event",
                hint="its process hangs in the kernel; see its state under /proc",
            )

    async def _ends(self, exited: asyncio.Future[Ending], seconds: float | None) -> bool:
        if seconds is None:
            await asyncio.shield(exited)
            return True
        alarm = asyncio.ensure_future(self._room.clock.sleep(seconds))
        try:
            await asyncio.wait((exited, alarm), return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
        return exited.done()

    async def _mark(self, held: Held) -> None:
        """Write down that a person ended it, before it ends: a restart would take the answer away again."""
        if not held.state.stopped:
            held.state = msgspec.structs.replace(held.state, stopped=True)
            if held.revives:
                await self._lifecycle.save(held, held.state)

    async def _give_up(self, held: Held) -> None:
        """End the waiting for a restart."""
        held.unwatch()
        held.state = msgspec.structs.replace(held.state, stopped=True)
        await self._lifecycle.change(held, state=ContainerState.EXITED)
        held.tell_exit()

    async def _signal(self, held: Held, number: int) -> None:
        try:
            await self._room.runtime.signal(held.id, number)
        except (NotFound, Conflict):
            return  # it has just ended

    async def _unfreeze(self, held: Held) -> None:
        if held.state.status.state == ContainerState.PAUSED:
            await self._lifecycle.change(held, state=ContainerState.RUNNING)
            with contextlib.suppress(NotFound, Conflict):  # the signal has ended it, frozen as it was
                await self._room.runtime.resume(held.id)
            self._lifecycle.publish(held, "unpause")


def _grace_s(held: Held) -> float:
    return (held.record.container.spec.stop_grace_ns or STOP_GRACE_NS) / 1e9
