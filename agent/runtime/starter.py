"""Starts containers and execs: everything that blocks, done in the keeper's worker threads.

The order is save, make, run, save: a record in phase "starting" is on disk before anything is made, so that a keeper
which dies in between leaves nothing that the next one does not know how to remove. On failure everything is undone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from agent.kernel import pidfd as pidfds
from agent.kernel import syscalls as sys
from agent.kernel.program import Executor, Failed, Process, Program
from agent.runtime import blocks, console, ids, lsm, seccomp
from agent.runtime.blocks import Wiring
from agent.runtime.cgroups.group import Group, Groups
from agent.runtime.console import Console
from agent.runtime.failure import Failure
from agent.runtime.foreign import Foreign
from agent.runtime.ids import Ids
from agent.runtime.means import bounds, can_mknod, compiled
from agent.runtime.outcome import failure, translated
from agent.runtime.record import RUNNING, STARTING, Record, Records, boot_id
from agent.runtime.root import Root
from agent.runtime.spare import Spare
from agent.runtime.spec import config as specs
from agent.runtime.spec.config import Spec
from agent.runtime.spec.process import Process as OciProcess
from agent.runtime.spec.process import parse_process
from agent.runtime.stdio import Streams

_ENTERED = sys.CLONE_NEWNS | sys.CLONE_NEWUTS | sys.CLONE_NEWIPC | sys.CLONE_NEWNET | sys.CLONE_NEWCGROUP


class Running(NamedTuple):
    record: Record
    pidfd: int
    group: Group
    streams: Streams


class Executed(NamedTuple):
    pid: int
    pidfd: int
    streams: Streams


class Starter:
    """Threads may share it."""

    def __init__(self, records: Records, groups: Groups, executor: Executor, *, nofile: int) -> None:
        self._records = records
        self._groups = groups
        self._executor = executor
        self._boot = boot_id()
        self._bounds = bounds(nofile)
        self._can_mknod = can_mknod(f"{records.directory}/mknod-{os.getpid()}")
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._spare = Spare()
        self._foreign = Foreign(records, groups.layout, executor)
        self._inodes_tell = pidfds.inodes_tell()
        self._known = lru_cache(maxsize=32)(self._config)

    def start(self, request: Mapping[str, Any]) -> Running:
        """Start a container. Raises Failure in docker's words; then nothing of it is left."""
        container = request["id"]
        config = specs.unattended(specs.parse(request["config"]))
        lsm.check(config.process)
        filter_ = compiled(config)
        name = (
            config.cgroup.lstrip("/")
            if config.cgroup.startswith("/")
            else (f"{request['cgroup_parent']}/{config.cgroup or container}")
        )
        self._records.make(container)
        record = Record(
            id=container,
            phase=STARTING,
            boot=self._boot,
            cgroup=name,
            controllers=(),
            own_pids=config.namespaces.get(sys.CLONE_NEWPID) == "",
            log_path=request["log_path"],
            log_max_bytes=request["log_max_bytes"],
            log_max_files=request["log_max_files"],
            terminal=request["tty"],
            runtime=request["runtime"],
        )
        group: Group | None = None
        try:
            self._records.begin(record)
            if record.runtime:
                group = self._groups.theirs.find(name, self._groups.theirs.layout.v1)
                record = replace(record, controllers=group.controllers)
                running = self._run_elsewhere(request, config, record, group)
            else:
                self._records.save_config(container, request["config"])
                group = self._groups.create(name, config.limits)
                record = replace(record, controllers=group.controllers)
                running = self._run(request, config, filter_, record, group)
            self._records.save(running.record)
        except BaseException as error:
            with contextlib.suppress(OSError, Failure):
                if group is not None:
                    group.kill()
                    group.remove()
            self._records.remove(container)
            raise failure(error) from error
        return running

    def _run(
        self, request: Mapping[str, Any], config: Spec, filter_: seccomp.Filter | None, record: Record, group: Group
    ) -> Running:
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as undo:
            cgroup_fd, tasks = group.open()
            for fd in (cgroup_fd, *tasks):
                if fd >= 0:
                    opened.callback(os.close, fd)
            joins, pid_namespace, own = [], -1, Ids()
            owner = ids.owner(config.process, config)
            if config.namespaces.get(sys.CLONE_NEWNET) == "" and sys.CLONE_NEWUSER not in config.namespaces:
                fd = self._spare.take()
                opened.callback(os.close, fd)
                config = config._replace(namespaces={**config.namespaces, sys.CLONE_NEWNET: f"/proc/self/fd/{fd}"})
            for kind, path in config.namespaces.items():
                if path:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    opened.callback(os.close, fd)
                    if kind == sys.CLONE_NEWPID:
                        pid_namespace = fd
                    elif kind == sys.CLONE_NEWUSER:
                        own = Ids(fd, ids.first_of(config))
                    else:
                        joins.append((fd, kind))
            terminal: Console | None = None
            stdio: tuple[int, int, int] | None = None
            streams = Streams({}, -1, -1)
            if record.terminal:
                terminal = console.new(request["rows"], request["columns"])
                opened.callback(terminal.close)
            else:
                stdio, streams = self._fifos(record.id, owner, opened, wants_stdin=request["stdin"])
                undo.callback(streams.close)
            program = blocks.start(
                ids.outside(config),
                Wiring(
                    bounds=self._bounds,
                    filter=filter_,
                    tasks=tuple(tasks),
                    stdio=stdio,
                    console=terminal,
                    joins=tuple(joins),
                    mount_point=self._records.path(record.id, "root"),
                    root=Root(**{**request["rootfs"], "lower": tuple(request["rootfs"]["lower"])}),
                    cgroups=group.mounts(),
                    directories=frozenset(
                        mount.origin
                        for mount in config.mounts
                        if mount.kind == "bind" and os.path.isdir(mount.origin)  # noqa: PTH112 - the hot path
                    ),
                    can_mknod=self._can_mknod,
                    own=own,
                ),
            )
            process = self._execute(
                program, config.process, blocks.clone_flags(config.namespaces), cgroup_fd, pid_namespace
            )
            started_at_ns = time.time_ns()
            undo.callback(_kill, process)
            if terminal is not None:
                streams = terminal_streams(terminal.receive())
                undo.callback(streams.close)
            record = replace(
                record,
                phase=RUNNING,
                pid=process.pid,
                start_time=self._start_time(process.pid),
                inode=pidfds.inode(process.pidfd),
                started_at_ns=started_at_ns,
            )
            undo.pop_all()
            return Running(record, process.pidfd, group, streams)

    def _run_elsewhere(self, request: Mapping[str, Any], config: Spec, record: Record, group: Group) -> Running:
        """As `_run`, by another runtime."""
        program, container = record.runtime, record.id
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as undo:
            stdio: tuple[int, int, int] | None = None
            streams = Streams({}, -1, -1)
            if not record.terminal:
                owner = ids.owner(config.process, config)
                stdio, streams = self._fifos(container, owner, opened, wants_stdin=request["stdin"])
                undo.callback(streams.close)
            self._foreign.write(container, request["config"], config, record.cgroup, self._bounds)
            root = Root(**{**request["rootfs"], "lower": tuple(request["rootfs"]["lower"])})
            born = self._foreign.create(program, container, root, stdio=stdio)
            undo.callback(os.close, born.pidfd)
            if born.master >= 0:
                streams = terminal_streams(born.master)
                undo.callback(streams.close)
            # On record before it runs: its end is then this keeper's to see, or the next one's.
            record = replace(
                record,
                phase=RUNNING,
                pid=born.pid,
                start_time=self._start_time(born.pid),
                inode=pidfds.inode(born.pidfd),
                started_at_ns=time.time_ns(),
            )
            self._foreign.start(program, container, born.pid)
            undo.pop_all()
            return Running(record, born.pidfd, group, streams)

    def _execute_elsewhere(self, record: Record, request: Mapping[str, Any]) -> Executed:
        """As `execute`, by the runtime that runs the container."""
        merged = {**self._records.config(record.id)["process"], **request["process"]}
        process = parse_process(merged)
        with contextlib.ExitStack() as opened, contextlib.ExitStack() as undo:
            stdio: tuple[int, int, int] | None = None
            streams = Streams({}, -1, -1)
            if not request["tty"]:
                stdio, streams = self._pipes((process.uid, process.gid), opened, wants_stdin=request["stdin"])
                undo.callback(streams.close)
            else:
                merged["consoleSize"] = {"height": request["rows"], "width": request["columns"]}
            born = self._foreign.execute(record.runtime, record.id, merged, stdio=stdio)
            if born.master >= 0:
                streams = terminal_streams(born.master)
            undo.pop_all()
            return Executed(born.pid, born.pidfd, streams)

    def execute(self, record: Record, pidfd: int, group: Group, request: Mapping[str, Any]) -> Executed:
        """Start another process in a running container: its namespaces, cgroup, seccomp, capabilities."""
        if record.runtime:
            try:
                return self._execute_elsewhere(record, request)
            except BaseException as error:
                raise failure(error) from error
        own, config = self._known(record.id, record.started_at_ns)
        process = parse_process({**own, **request["process"]})
        try:
            with contextlib.ExitStack() as opened, contextlib.ExitStack() as undo:
                cgroup_fd, tasks = group.open()
                for fd in (cgroup_fd, *tasks):
                    if fd >= 0:
                        opened.callback(os.close, fd)
                terminal: Console | None = None
                stdio: tuple[int, int, int] | None = None
                streams = Streams({}, -1, -1)
                if request["tty"]:
                    terminal = console.new(request["rows"], request["columns"])
                    opened.callback(terminal.close)
                else:
                    owner = ids.owner(process, config)
                    stdio, streams = self._pipes(owner, opened, wants_stdin=request["stdin"])
                    undo.callback(streams.close)
                kinds = sum(kind for kind in config.namespaces if kind & _ENTERED)
                program = blocks.execute(
                    process,
                    Wiring(
                        bounds=self._bounds,
                        filter=compiled(config),
                        tasks=tuple(tasks),
                        stdio=stdio,
                        console=terminal,
                        joins=((pidfd, kinds),),
                        own=Ids(pidfd) if sys.CLONE_NEWUSER in config.namespaces else Ids(),
                    ),
                )
                own_pids = sys.CLONE_NEWPID in config.namespaces
                child = self._execute(program, process, 0, cgroup_fd, pidfd if own_pids else -1)
                undo.callback(_kill, child)
                if terminal is not None:
                    streams = terminal_streams(terminal.receive())
                undo.pop_all()
                return Executed(child.pid, child.pidfd, streams)
        except BaseException as error:
            raise failure(error) from error

    def _start_time(self, pid: int) -> int:
        return 0 if self._inodes_tell else pidfds.start_time(pid)

    def _config(self, container: str, _started_at_ns: int) -> tuple[dict[str, Any], Spec]:
        """Its `process` as it is written, and all of it parsed. With another start comes another config."""
        raw = self._records.config(container)
        return raw["process"], specs.parse(raw)

    @property
    def unprepared(self) -> bool:
        """Whether `prepare` has something to do."""
        return self._spare.short

    def prepare(self) -> None:
        """Make ready what the next start would wait for."""
        self._spare.refill()

    def discard(self, container: str, group: Group | None, *, alone: bool = False) -> None:
        """Remove what a dead container left: processes, cgroups, files. Idempotent; waits for the dying.

        `alone`: as `Record.alone`.
        """
        if group is not None:
            if not alone:
                group.kill()
            group.remove()
        self._records.remove(container)

    def _execute(
        self, program: Program, process: OciProcess, flags: int, cgroup_fd: int, pid_namespace: int
    ) -> Process:
        try:
            return self._executor.start(program, flags, cgroup_fd=cgroup_fd, pid_namespace=pid_namespace)
        except Failed as error:
            raise translated(error, process) from error

    def _fifos(
        self, container: str, owner: tuple[int, int], opened: contextlib.ExitStack, *, wants_stdin: bool
    ) -> tuple[tuple[int, int, int], Streams]:
        """(the container's ends, ours). The container's output ends are read-write: without a keeper it blocks, when
        the FIFO is full, but never gets SIGPIPE."""
        theirs, sources = [self._null], dict[int, int]()
        stdin = -1
        for stream, name in ((1, "stdout"), (2, "stderr")):
            path = self._records.path(container, name)
            os.mkfifo(path, 0o600)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            _give(fd, owner)  # so that it may open /dev/stdout again
            theirs.append(fd)
            sources[os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)] = stream
        if wants_stdin:
            path = self._records.path(container, "stdin")
            os.mkfifo(path, 0o600)
            both = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, both)
            _give(both, owner)
            theirs[0] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, theirs[0])
            stdin = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return (theirs[0], theirs[1], theirs[2]), Streams(sources, stdin, -1)

    def _pipes(
        self, owner: tuple[int, int], opened: contextlib.ExitStack, *, wants_stdin: bool
    ) -> tuple[tuple[int, int, int], Streams]:
        theirs, sources = [self._null], dict[int, int]()
        stdin = -1
        for stream in (1, 2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            _give(writer, owner)
            opened.callback(os.close, writer)
            theirs.append(writer)
            sources[reader] = stream
        if wants_stdin:
            theirs[0], stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(stdin, False)
            _give(theirs[0], owner)
            opened.callback(os.close, theirs[0])
        return (theirs[0], theirs[1], theirs[2]), Streams(sources, stdin, -1)


def _give(fd: int, owner: tuple[int, int]) -> None:
    if any(owner):
        os.fchown(fd, *owner)


def terminal_streams(master: int) -> Streams:
    """One descriptor to read, one to write and one to resize: the loop watches each for itself."""
    return Streams({master: 1}, os.dup(master), os.dup(master))


def _kill(process: Process) -> None:
    pidfds.send_signal(process.pidfd, 9)
    os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
    os.close(process.pidfd)
