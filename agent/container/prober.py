"""Prober: runs the health checks of running containers, each in a task of its own. `health` says what they come to.

A test is an exec like any other: in the container's namespaces and limits, as its user. What outlasts its time is
killed. While a container is paused nothing is asked of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agent.container.exec import ExecRequest
from agent.container.health import OUTPUT_BYTES, argv_of, judged, wait_ns
from agent.container.held import Held
from agent.runtime.streams import Streams
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.container import ContainerState
from shoal.model.health import Health, HealthCheck, HealthResult

log = logging.getLogger(__name__)

_KILL = 9
Execute = Callable[[Held, ExecRequest], Awaitable[Streams]]


class Prober:
    """`execute` runs a command in a container, `tell` takes what its health is now."""

    def __init__(self, execute: Execute, tell: Callable[[Held, Health], Awaitable[None]], clock: Clock) -> None:
        self._execute = execute
        self._tell = tell
        self._clock = clock

    async def watch(self, held: Held) -> None:
        """Until cancelled, when the container ends."""
        check = held.record.container.health
        while True:
            status = held.state.status
            waiting_ns = wait_ns(status.health, check, now_ns=self._clock.now_ns(), started_at_ns=status.started_at_ns)
            await self._clock.sleep(waiting_ns / 1e9)
            if held.state.status.state != ContainerState.RUNNING:
                continue
            result = await self._probe(held, check)
            status = held.state.status
            if status.state == ContainerState.RUNNING:
                await self._tell(held, judged(status.health, check, result, started_at_ns=status.started_at_ns))

    async def _probe(self, held: Held, check: HealthCheck) -> HealthResult:
        began = self._clock.now_ns()
        try:
            code, output = await self._run(held, check)
        except ShoalError as error:
            code, output = -1, str(error)
        return HealthResult(started_at_ns=began, ended_at_ns=self._clock.now_ns(), exit_code=code, output=output)

    async def _run(self, held: Held, check: HealthCheck) -> tuple[int, str]:
        streams = await self._execute(held, ExecRequest(argv=argv_of(check)))
        reading = asyncio.ensure_future(_read(streams))
        alarm = asyncio.ensure_future(self._clock.sleep(check.timeout_ns / 1e9))
        try:
            await asyncio.wait((reading, alarm), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await streams.signal(_KILL)
                return -1, f"Health check exceeded timeout ({check.timeout_ns / 1e9:g}s)"
            return reading.result()
        finally:
            alarm.cancel()
            reading.cancel()
            await asyncio.wait((reading,))
            await streams.close()


async def _read(streams: Streams) -> tuple[int, str]:
    """(exit code, what both streams said, as much of it as is kept)."""
    output = bytearray()
    while (chunk := await streams.read()) is not None:
        output += chunk[1][: max(OUTPUT_BYTES - len(output), 0)]
    return (await streams.wait()).code, output.decode(errors="replace")
