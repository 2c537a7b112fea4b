"""The agent's door to containers: an asyncio client of the keeper (`keeper`), and nothing else.

`Runtime.open` dials the keeper and starts one when there is none; when it dies, another is started at once and adopts
what runs, waits and attachments go on (`line`, `streams`). Only what was half done then fails, with Unavailable: a
start, an exec. Which fields of an OCI config are understood, `spec` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.runtime.cgroups.usage import Usage
from agent.runtime.line import Line
from agent.runtime.run import Exit, Start, Started
from agent.runtime.streams import Streams

# A start takes milliseconds; one that takes so long hangs in what it mounts.
BEGUN_S = 30.0


class Runtime:
    """One per agent. Safe to use from many tasks."""

    def __init__(self, line: Line, cgroup_parent: str) -> None:
        self._line = line
        self._cgroup_parent = cgroup_parent.strip("/")

    @classmethod
    async def open(cls, *, run_dir: Path, cgroup_parent: str = "shoal") -> Runtime:
        """Dial the keeper of `run_dir`, or start one, detached. Raises Unavailable when none comes up."""
        return cls(await Line.open(run_dir), cgroup_parent)

    async def start(self, start: Start) -> Started:
        """Start a container; returns when its command has been exec'ed.

        Raises CommandNotFound, CommandNotExecutable or StartFailed in docker's words; then nothing of it is left. A
        container of this id that has exited is replaced.
        """
        config = msgspec.json.encode(start.config).decode()  # a text, by which the keeper knows what it has seen before
        container = {**msgspec.structs.asdict(start), "config": config, "cgroup_parent": self._cgroup_parent}
        return msgspec.convert(await self._line.ask("start", container=container), Started)

    async def attach(self, id: str, *, stdin: bool = False) -> Streams:
        """The output from now on, and if wished the input; before the start of `id` it misses nothing."""
        return await Streams.open(self._line, {"op": "attach", "id": id, "stdin": stdin})

    async def exec(
        self, id: str, process: Mapping[str, Any], *, stdin: bool, tty: bool, rows: int = 0, columns: int = 0
    ) -> Streams:
        """Run an OCI process in a running container. What it leaves out (user, env, capabilities…) is the container's.

        Raises as `start` does, or Conflict when the container does not run.
        """
        return await Streams.open(
            self._line,
            {
                "op": "exec",
                "id": id,
                "process": dict(process),
                "stdin": stdin,
                "tty": tty,
                "rows": rows,
                "columns": columns,
            },
        )

    async def signal(self, id: str, number: int, *, all: bool = False) -> None:
        """Signal the first process, or every process. Raises Conflict when the container does not run."""
        await self._line.ask("signal", id=id, number=number, all=all)

    async def pause(self, id: str) -> None:
        """Freeze every process of the container; returns when they are."""
        await self._line.ask_again("pause", id=id)

    async def resume(self, id: str) -> None:
        await self._line.ask_again("resume", id=id)

    async def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Other limits for a running container, all of them: OCI `linux.resources`. Raises Conflict for what the
        kernel refuses."""
        await self._line.ask_again("update", id=id, resources=dict(resources))

    async def pids(self, id: str) -> list[int]:
        """Every process of a running container, by its pid on the host."""
        found: list[int] = await self._line.ask_again("pids", id=id)
        return found

    async def usage(self, id: str) -> Usage:
        """What a running container uses. Raises Conflict when it does not run."""
        return Usage(**await self._line.ask_again("usage", id=id))

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Tell the container's terminal its size; without a terminal nothing happens."""
        await self._line.ask_again("resize", id=id, rows=rows, columns=columns)

    async def wait(self, id: str) -> Exit:
        """How the container ended, when it has; the answer stays until `delete`. Raises NotFound."""
        return msgspec.convert(await self._line.ask_again("wait", id=id), Exit)

    async def list(self) -> dict[str, Started | Exit]:
        """What the keeper knows: running containers, and exited ones until `delete`. Those are waited for that an agent
        before this one had ordered, but no start that hangs keeps an agent from all the others."""
        try:
            async with asyncio.timeout(BEGUN_S):
                known = await self._line.ask_again("list", begun=True)
        except TimeoutError:
            known = await self._line.ask_again("list")
        return {
            id: msgspec.convert(entry["exit"], Exit) if entry["exit"] else Started(entry["pid"], entry["started_at_ns"])
            for id, entry in known.items()
        }

    async def delete(self, id: str) -> None:
        """Kill what is left, remove cgroup, FIFOs and state. Idempotent."""
        await self._line.ask_again("delete", id=id)

    async def run(self) -> None:
        """As long as the runtime is open. Raises what ended the connection for good: an agent without a keeper would
        go on as if it were whole."""
        await self._line.run()

    async def close(self) -> None:
        """Hang up; the keeper and its containers go on."""
        await self._line.close()
