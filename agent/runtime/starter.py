"""Starts containers and execs: everything that blocks, done in the keeper's worker threads.

The order is save, make, run, save: a record in phase "starting" is on disk before anything is made, so that a keeper
which dies in between leaves nothing that the next one does not know how to remove. On failure everything is undone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from agent.kernel import pidfd as pidfds
from agent.kernel import syscalls as sys
from agent.kernel.descriptors import Descriptors
from agent.kernel.program import Executor, Failed, Process, Program
from agent.runtime import blocks, ids, lsm, seccomp, void
from agent.runtime.blocks import Wiring
from agent.runtime.cgroups.group import Group, Groups
from agent.runtime.delegate import Delegate
from agent.runtime.failure import Failure
from agent.runtime.ids import Ids
from agent.runtime.means import bounds, can_mknod, compiled
from agent.runtime.outcome import failure, translated
from agent.runtime.plumbing import Plumber
from agent.runtime.record import Record, Records, boot_id
from agent.runtime.root import Root
from agent.runtime.running import Executed, Running, recorded
from agent.runtime.spare import Spare
from agent.runtime.spec import config as specs
from agent.runtime.spec.config import Spec
from agent.runtime.spec.process import Process as OciProcess
from agent.runtime.spec.process import parse_process
from agent.runtime.stdio import Streams

_ENTERED = sys.CLONE_NEWNS | sys.CLONE_NEWUTS | sys.CLONE_NEWIPC | sys.CLONE_NEWNET | sys.CLONE_NEWCGROUP


class _Joined(NamedTuple):
    """Descriptors of namespaces that are there already: of pids or -1, of ids, and (descriptor, kind) of the others."""

    pids: int
    own: Ids
    others: tuple[tuple[int, int], ...]


class Starter:
    """Threads may share it."""

    def __init__(self, records: Records, groups: Groups, executor: Executor, *, nofile: int) -> None:
        self._records = records
        self._groups = groups
        self._executor = executor
        self._boot = boot_id()
        self._bounds = bounds(nofile)
        self._can_mknod = can_mknod(f"{records.directory}/mknod-{os.getpid()}")
        self._plumber = Plumber(records)
        self._spare = Spare()
        self._void = void.new(str(records.directory))
        self._delegate = Delegate(records, self._plumber, groups.layout, executor, self._bounds)
        self._inodes_tell = pidfds.inodes_tell()
        self._parsed = lru_cache(maxsize=16)(_parsed)
        self._made = lru_cache(maxsize=8)(self._program)  # of containers that are started again and again
        self._known = lru_cache(maxsize=32)(self._config)
        self._asked = lru_cache(maxsize=32)(self._process)  # a health check asks for the same again and again

    def start(self, request: Mapping[str, Any], order: bytes) -> Running:
        """Start a container. `request` is its part of `order`. Raises Failure in docker's words; then nothing of it is
        left."""
        container = request["id"]
        config, filter_ = self._parsed(request["config"])
        if not request["runtime"]:
            specs.unattended(config)
        lsm.check(config.process)
        record = Record.ordered(request, config, self._boot)
        self._records.make(container)
        group: Group | None = None
        try:
            self._records.begin(record, order)
            if record.runtime:
                group = self._groups.theirs.find(record.cgroup, self._groups.theirs.layout.v1)
                record = record._replace(controllers=group.controllers)
                running = self._delegate.run(request, config, record, group)
            else:
                group = self._groups.create(record.cgroup, config.limits)
                record = record._replace(controllers=group.controllers)
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
        with Descriptors() as opened:
            cgroup_fd, tasks = _entrance(group, opened)
            joined = self._namespaces(config, opened)
            if record.terminal:
                ends = self._plumber.console(request, opened)
            else:
                ends = self._plumber.fifos(record.id, ids.owner(config.process, config), request, opened)
            root = Root(**{**request["rootfs"], "lower": tuple(request["rootfs"]["lower"])})
            wiring = Wiring(
                bounds=self._bounds,
                filter=filter_,
                tasks=tasks,
                stdio=ends.stdio,
                console=ends.console,
                joins=joined.others,
                mount_point=self._records.path(record.id, "root"),
                root=root,
                void=self._void if blocks.void_suffices(config, root) else -1,
                cgroups=group.mounts(),
                directories=frozenset(
                    mount.origin
                    for mount in config.mounts
                    if mount.kind == "bind" and os.path.isdir(mount.origin)  # noqa: PTH112 - the hot path
                ),
                can_mknod=self._can_mknod,
                own=joined.own,
            )
            streams, process = ends.streams, None
            try:
                program, flags = self._made(request["config"], wiring)
                process = self._execute(program, config.process, flags, cgroup_fd, joined.pids)
                streams = ends.received()
                record = recorded(record, process.pid, process.pidfd, inodes_tell=self._inodes_tell)
                return Running(record, process.pidfd, group, streams)
            except BaseException:
                _undo(process, streams)
                raise

    def _program(self, text: str, wiring: Wiring) -> tuple[Program, int]:
        """What the child of a start runs, and the kinds of namespaces that its clone makes."""
        config, _ = self._parsed(text)
        flags = blocks.clone_flags(config.namespaces) & ~sum(kind for _, kind in wiring.joins)
        if wiring.void >= 0:
            flags &= ~sys.CLONE_NEWNS
        return blocks.start(ids.outside(config), wiring), flags

    def _namespaces(self, config: Spec, opened: Descriptors) -> _Joined:
        """Open those that are joined; a new one of the network is one that is ready."""
        pids, own, others = -1, Ids(), []
        for kind, path in config.namespaces.items():
            ready = kind == sys.CLONE_NEWNET and not path and sys.CLONE_NEWUSER not in config.namespaces
            if path or ready:
                fd = self._spare.take() if ready else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                opened.append(fd)
                if kind == sys.CLONE_NEWPID:
                    pids = fd
                elif kind == sys.CLONE_NEWUSER:
                    own = Ids(fd, ids.first_of(config))
                else:
                    others.append((fd, kind))
        return _Joined(pids, own, tuple(others))

    def execute(self, record: Record, pidfd: int, group: Group, request: Mapping[str, Any]) -> Executed:
        """Start another process in a running container: its namespaces, cgroup, seccomp, capabilities."""
        try:
            if record.runtime:
                return self._delegate.execute(record, request)
            config, process = self._asked(record.id, record.started_at_ns, request["text"])
            return self._enter(config, process, pidfd, group, request)
        except BaseException as error:
            raise failure(error) from error

    def _enter(
        self, config: Spec, process: OciProcess, pidfd: int, group: Group, request: Mapping[str, Any]
    ) -> Executed:
        with Descriptors() as opened:
            cgroup_fd, tasks = _entrance(group, opened)
            if request["tty"]:
                ends = self._plumber.console(request, opened)
            else:
                ends = self._plumber.pipes(ids.owner(process, config), request, opened)
            kinds = sum(kind for kind in config.namespaces if kind & _ENTERED)
            wiring = Wiring(
                bounds=self._bounds,
                filter=compiled(config),
                tasks=tasks,
                stdio=ends.stdio,
                console=ends.console,
                joins=((pidfd, kinds),),
                own=Ids(pidfd) if sys.CLONE_NEWUSER in config.namespaces else Ids(),
            )
            pids = pidfd if sys.CLONE_NEWPID in config.namespaces else -1
            child = None
            try:
                child = self._execute(blocks.execute(process, wiring), process, 0, cgroup_fd, pids)
                return Executed(child.pid, child.pidfd, ends.received())
            except BaseException:
                _undo(child, ends.streams)
                raise

    def _process(self, container: str, started_at_ns: int, order: bytes) -> tuple[Spec, OciProcess]:
        """The container's config, and the process that is asked for with what it leaves out."""
        own, config = self._known(container, started_at_ns)
        return config, parse_process({**own, **json.loads(order)["process"]})

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

    def discarded_at_once(self, container: str, group: Group) -> bool:
        """As `discard` of one that was `alone`, done in the time that it takes to ask a worker; False when its group
        takes longer."""
        if not group.removed_at_once():
            return False
        self._records.remove(container)
        return True

    def _execute(
        self, program: Program, process: OciProcess, flags: int, cgroup_fd: int, pid_namespace: int
    ) -> Process:
        try:
            return self._executor.start(program, flags, cgroup_fd=cgroup_fd, pid_namespace=pid_namespace)
        except Failed as error:
            raise translated(error, process) from error


def _parsed(text: str) -> tuple[Spec, seccomp.Filter | None]:
    config = specs.parse(json.loads(text))
    return config, compiled(config)


def _entrance(group: Group, opened: Descriptors) -> tuple[int, tuple[int, ...]]:
    """As `Group.open`, closed with `opened`."""
    directory, tasks = group.open()
    opened += tasks
    if directory >= 0:
        opened.append(directory)
    return directory, tuple(tasks)


def _undo(process: Process | None, streams: Streams) -> None:
    """What did not come to a container or an exec."""
    streams.close()
    if process is not None:
        pidfds.send_signal(process.pidfd, 9)
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
        os.close(process.pidfd)
