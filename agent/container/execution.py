"""Execution: one more process in a running container, for people (`exec`) and for health checks."""

from __future__ import annotations

from agent.container import host, link
from agent.container.exec import ExecRequest, exec_process
from agent.container.held import Held
from agent.container.launch import Launcher, hostname_of
from agent.runtime.runtime import Runtime
from agent.runtime.streams import Streams
from shoal.errors import CommandNotExecutable, CommandNotFound, Conflict, InvalidArgument, NotFound, StartFailed
from shoal.model.container import Container, ContainerState


class Execution:
    def __init__(self, runtime: Runtime, launcher: Launcher) -> None:
        self._runtime = runtime
        self._launcher = launcher
        self._available = host.available_capabilities()

    async def begin(self, held: Held, request: ExecRequest) -> Streams:
        """Raises Conflict if it does not run; CommandNotFound; CommandNotExecutable for whatever else keeps the command
        from running, as docker's exit codes have it."""
        state = held.state.status.state
        if state == ContainerState.PAUSED:
            raise Conflict(f"Container {held.name} is paused, unpause the container before exec")
        if state != ContainerState.RUNNING:
            raise Conflict(f"Container {held.id} is not running", hint=f"run shoal start {held.name}")
        if not request.argv or not request.argv[0]:
            raise InvalidArgument("No exec command specified")
        try:
            return await self._begin(held, request)
        except CommandNotFound:
            raise
        except (InvalidArgument, StartFailed) as error:
            raise CommandNotExecutable(error.message, hint=error.hint) from error

    async def _begin(self, held: Held, request: ExecRequest) -> Streams:
        container = held.container
        process = exec_process(
            request,
            container,
            user=self._launcher.user_now(container, request.user or container.user),
            hostname=hostname_of(container),
            available=self._available,
            linked=await self._linked(container),
        )
        return await self._runtime.exec(
            held.id, process, stdin=request.stdin, tty=request.tty, rows=request.rows, columns=request.columns
        )

    async def _linked(self, container: Container) -> list[str]:
        """As far as those that it is linked to still run."""
        try:
            return link.environment(container.name, await self._launcher.links(container))
        except (Conflict, NotFound):
            return []
