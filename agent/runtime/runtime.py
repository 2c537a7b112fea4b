"""The agent's door to containers: an asyncio client of the keeper (`keeper`, `wire`), and nothing else.

`Runtime.open` dials the keeper and starts one when there is none; when it dies, another is started at once and adopts
what runs, waits and attachments go on. Only what was half done then fails, with Unavailable: a start, an exec.
Which fields of an OCI config are understood, `spec` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.runtime import wire
from agent.runtime.cgroups.usage import Usage
from agent.runtime.launcher import SPAWN_S, last_words, launch
from shoal.errors import TREE, ShoalError, Unavailable

SOCKET = "keeper.sock"
_ATTACH_TRIES = 3
_CHUNK = 256 * 1024


class Rootfs(msgspec.Struct, frozen=True):
    """What becomes the container's /: layers under a writable directory, or one directory bound as it is."""

    lower: tuple[str, ...] = ()  # top first
    upper: str = ""  # none: read-only
    work: str = ""
    volatile: bool = False  # no sync: for a writable layer that is never used again
    path: str = ""  # instead of layers


class Start(msgspec.Struct, frozen=True):
    """A container to start. `config` is an OCI runtime-spec 1.x config.json; the root comes from `rootfs`.

    A relative or absent `linux.cgroupsPath` is taken below the runtime's cgroup parent. The annotation
    `shoal.seccomp: default` stands for docker's default profile, for the capabilities that the process has.
    """

    id: str
    config: dict[str, Any]
    rootfs: Rootfs
    runtime: str = ""  # the program of another OCI runtime that is to run it; "" for ours
    log_path: str = ""
    log_max_bytes: int = 0  # 0: no rotation
    log_max_files: int = 1
    tty: bool = False
    stdin: bool = False
    rows: int = 0
    columns: int = 0


class Started(msgspec.Struct, frozen=True):
    pid: int  # in the keeper's pid namespace
    started_at_ns: int


class Exit(msgspec.Struct, frozen=True):
    """`known` is False when nobody was there to see the end and the kernel no longer tells: the code means nothing."""

    code: int  # 128 + n after signal n
    oom_killed: bool
    finished_at_ns: int
    known: bool = True


class _Gone(Exception):
    """The keeper closed the connection."""


class Runtime:
    """One per agent. Safe to use from many tasks."""

    def __init__(self, run_dir: Path, cgroup_parent: str) -> None:
        self._run_dir = run_dir
        self._cgroup_parent = cgroup_parent.strip("/")
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dialing = asyncio.Lock()

    @classmethod
    async def open(cls, *, run_dir: Path, cgroup_parent: str = "shoal") -> Runtime:
        """Dial the keeper of `run_dir`, or start one, detached. Raises Unavailable when none comes up."""
        runtime = cls(run_dir, cgroup_parent)
        reader = await runtime._connect()
        runtime._task = asyncio.create_task(runtime._stay_connected(reader), name="keeper connection")
        return runtime

    async def start(self, start: Start) -> Started:
        """Start a container; returns when its command has been exec'ed.

        Raises CommandNotFound, CommandNotExecutable or StartFailed in docker's words; then nothing of it is left. A
        container of this id that has exited is replaced.
        """
        container = {**msgspec.to_builtins(start), "cgroup_parent": self._cgroup_parent}
        return msgspec.convert(await self._ask("start", container=container), Started)

    async def attach(self, id: str, *, stdin: bool = False) -> Streams:
        """The output from now on, and if wished the input; before the start of `id` it misses nothing."""
        return await Streams._open(self, {"op": "attach", "id": id, "stdin": stdin})

    async def exec(
        self, id: str, process: Mapping[str, Any], *, stdin: bool, tty: bool, rows: int = 0, columns: int = 0
    ) -> Streams:
        """Run an OCI process in a running container. What it leaves out (user, env, capabilities…) is the container's.

        Raises as `start` does, or Conflict when the container does not run.
        """
        return await Streams._open(
            self,
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
        await self._ask("signal", id=id, number=number, all=all)

    async def pause(self, id: str) -> None:
        """Freeze every process of the container; returns when they are."""
        await self._ask_again("pause", id=id)

    async def resume(self, id: str) -> None:
        await self._ask_again("resume", id=id)

    async def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Other limits for a running container, all of them: OCI `linux.resources`. Raises Conflict for what the
        kernel refuses."""
        await self._ask_again("update", id=id, resources=dict(resources))

    async def pids(self, id: str) -> list[int]:
        """Every process of a running container, by its pid on the host."""
        found: list[int] = await self._ask_again("pids", id=id)
        return found

    async def usage(self, id: str) -> Usage:
        """What a running container uses. Raises Conflict when it does not run."""
        return Usage(**await self._ask_again("usage", id=id))

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Tell the container's terminal its size; without a terminal nothing happens."""
        await self._ask_again("resize", id=id, rows=rows, columns=columns)

    async def wait(self, id: str) -> Exit:
        """How the container ended, when it has; the answer stays until `delete`. Raises NotFound."""
        return msgspec.convert(await self._ask_again("wait", id=id), Exit)

    async def list(self) -> dict[str, Started | Exit]:
        """What the keeper knows: running containers, and exited ones until `delete`."""
        known = await self._ask_again("list")
        return {
            id: msgspec.convert(entry["exit"], Exit) if entry["exit"] else Started(entry["pid"], entry["started_at_ns"])
            for id, entry in known.items()
        }

    async def delete(self, id: str) -> None:
        """Kill what is left, remove cgroup, FIFOs and state. Idempotent."""
        await self._ask_again("delete", id=id)

    async def run(self) -> None:
        """As long as the runtime is open. Raises what ended the connection for good: an agent without a keeper would
        go on as if it were whole."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """Hang up; the keeper and its containers go on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._hang_up()

    # The connection

    async def _ask_again(self, op: str, **fields: Any) -> Any:
        """For requests that do no harm twice: survives the keeper's death."""
        while True:
            try:
                return await self._request(op, fields)
            except _Gone:
                await self._reconnected()

    async def _ask(self, op: str, **fields: Any) -> Any:
        try:
            return await self._request(op, fields)
        except _Gone as error:
            raise Unavailable(f"the keeper died during {op}", hint="it is being restarted; try again") from error

    async def _request(self, op: str, fields: dict[str, Any]) -> Any:
        if self._task is None or self._task.done():
            raise Unavailable("the runtime is closed")
        await self._reconnected()
        if self._writer is None:
            raise _Gone
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(wire.message({"seq": number, "op": op, **fields}))
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def _reconnected(self) -> None:
        """Raises TimeoutError when no keeper comes up."""
        if not self._connected.is_set():
            async with asyncio.timeout(SPAWN_S):
                await self._connected.wait()

    async def _connect(self) -> asyncio.StreamReader:
        reader, self._writer = await self._dial()
        self._writer.write(wire.message({"op": "control"}))
        self._connected.set()
        return reader

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the keeper, starting it if nobody listens."""
        async with self._dialing:
            for _ in range(3):
                with contextlib.suppress(OSError), wire.address(self._run_dir / SOCKET) as name:
                    return await asyncio.open_unix_connection(name)
                await asyncio.to_thread(launch, self._run_dir, self._run_dir / SOCKET)
            raise Unavailable(f"no keeper answers on {self._run_dir / SOCKET}", hint=last_words(self._run_dir))

    async def _stay_connected(self, reader: asyncio.StreamReader) -> None:
        """Deliver answers; when the keeper dies, dial the next one, so that logs go on at once."""
        while True:
            await self._deliver(reader)
            self._connected.clear()
            self._hang_up()
            while True:
                try:
                    reader = await self._connect()
                    break
                except Unavailable:
                    await asyncio.sleep(1)  # nothing to wait for: the host cannot start a process now

    async def _deliver(self, reader: asyncio.StreamReader) -> None:
        decoder = wire.Decoder()
        while True:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                return
            if not data:
                return
            for _, payload in decoder.feed(data):
                answer = json.loads(payload)
                waiting = self._waiting.get(answer["seq"])
                if waiting is None or waiting.done():
                    continue
                if "error" in answer:
                    waiting.set_exception(_error(answer["error"]))
                else:
                    waiting.set_result(answer["result"])

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Gone())


class Streams:
    """One process's output and input. Closing it ends nothing: the process goes on, its output is thrown away."""

    def __init__(self, runtime: Runtime, request: dict[str, Any]) -> None:
        self._runtime = runtime
        self._request = request
        self._frames: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.Lock()
        self._decoder = wire.Decoder()
        self._input_ended = False
        self._closed = False
        self.pid = 0

    @classmethod
    async def _open(cls, runtime: Runtime, request: dict[str, Any]) -> Streams:
        streams = cls(runtime, request)
        tries = 1 if request["op"] == "exec" else _ATTACH_TRIES  # an attachment does no harm twice
        for left in reversed(range(tries)):
            try:
                await streams._dial()
                break
            except _Gone as error:
                if not left:
                    raise Unavailable(f"the keeper died during {request['op']}", hint="try again") from error
        return streams

    async def read(self) -> tuple[int, bytes] | None:
        """The next output: (1 for stdout or 2 for stderr, bytes); None when the process has ended."""
        async with self._reading:
            while self._frames.empty() and not self._exit.done():
                await self._receive()
            return None if self._frames.empty() else self._frames.get_nowait()

    async def write(self, data: bytes) -> None:
        """Give input; returns when it is on its way. After the process's end nothing happens."""
        for at in range(0, len(data), _CHUNK):
            await self._send(wire.frame(wire.STDIN, data[at : at + _CHUNK]))

    async def close_stdin(self) -> None:
        """Tell the process that no more input comes; its output goes on."""
        self._input_ended = True
        await self._send(wire.frame(wire.STDIN_END))

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(wire.message({"op": "resize", "rows": rows, "columns": columns}))

    async def signal(self, number: int) -> None:
        """Signal this process; after its end nothing happens."""
        await self._send(wire.message({"op": "signal", "number": number}))

    async def wait(self) -> Exit:
        """How the process ended. Output that nobody reads meanwhile is thrown away."""
        while not self._exit.done():
            if await self.read() is None:
                break
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Detach."""
        self._closed = True
        self._writer.close()
        if not self._exit.done():
            self._exit.set_exception(Unavailable("the attachment is closed"))
            self._exit.exception()  # somebody may wait for it, nobody has to

    async def _dial(self) -> None:
        self._reader, self._writer = await self._runtime._dial()
        self._decoder = wire.Decoder()
        self._writer.write(wire.message(self._request))
        while True:
            data = await self._read_some()
            if not data:
                raise _Gone
            frames = list(self._decoder.feed(data))
            if frames:
                break
        answer = json.loads(frames[0][1])
        if "error" in answer:
            self._writer.close()
            raise _error(answer["error"])
        self.pid = answer["result"]["pid"]
        self._take(frames[1:])

    async def _receive(self) -> None:
        data = await self._read_some()
        if data:
            self._take(list(self._decoder.feed(data)))
        elif self._closed:
            return
        elif self._request["op"] == "exec":
            self._exit.set_exception(Unavailable("the keeper died; what the command did since is not known"))
        else:
            await self._attach_again()

    async def _attach_again(self) -> None:
        """The keeper died: the next one has the container, and its output waits in the kernel."""
        self._writer.close()
        try:
            known = (await self._runtime.list()).get(self._request["id"])
            if isinstance(known, Exit):
                self._exit.set_result(known)
                return
            await self._dial()
            if self._input_ended:
                await self.close_stdin()
        except (ShoalError, _Gone, TimeoutError) as error:
            if not self._exit.done():
                self._exit.set_exception(error if isinstance(error, ShoalError) else Unavailable("the keeper is gone"))

    async def _read_some(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            return b""

    def _take(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            if kind == wire.JSON:
                if not self._exit.done():
                    self._exit.set_result(msgspec.convert(json.loads(payload)["exit"], Exit))
            else:
                self._frames.put_nowait((kind, payload))

    async def _send(self, data: bytes) -> None:
        if self._exit.done():
            return
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()


def _error(fields: Mapping[str, str]) -> ShoalError:
    return TREE.get(fields["kind"], ShoalError)(fields["message"], hint=fields["hint"])
