"""The keeper: one small process per host that starts containers, is their parent, holds their stdio and reaps them.

It answers the agent over a unix socket (`wire`, `reception`), does what blocks in worker threads (`starter`) and keeps
its state in `record`s, so that neither the agent's death nor its own touches a container: the next keeper adopts what
runs (`adopt`, `custody`). What else runs in a container `execs` knows; `daemon` is the process around it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

from agent.kernel import pidfd as pidfds
from agent.runtime import adopt
from agent.runtime.cgroups.group import Groups
from agent.runtime.connection import Connection, Stream
from agent.runtime.container import Container, Reply
from agent.runtime.custody import Custody
from agent.runtime.execs import Execs
from agent.runtime.failure import Failure
from agent.runtime.flow import Flow
from agent.runtime.loop import IN, Loop
from agent.runtime.orphans import Orphans
from agent.runtime.reception import Order, Reception
from agent.runtime.record import RUNNING, STARTING, ExitRecord, Records
from agent.runtime.roll import Roll
from agent.runtime.running import Running, exit_of
from agent.runtime.spec.resources import parse_limits
from agent.runtime.starter import Starter
from agent.runtime.stdio import Stdio, Streams
from agent.runtime.tap import Tap

_EXIT_CODES = {"CommandNotFound": 127, "CommandNotExecutable": 126}


class Keeper:
    """All state belongs to the loop's thread."""

    def __init__(self, loop: Loop, records: Records, groups: Groups, starter: Starter, custody: Custody) -> None:
        self._loop = loop
        self._records = records
        self._groups = groups
        self._starter = starter
        self._custody = custody
        self._flow = Flow(Tap())
        self._containers: dict[str, Container] = {}
        self._roll = Roll()
        self._orphans = Orphans(loop, self._awaited)
        self._execs = Execs(loop, starter, self._orphans, self._flow)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing is remembered."""
        return not self._containers

    @property
    def starting(self) -> bool:
        return any(container.phase == STARTING for container in self._containers.values())

    def adopt(self) -> None:
        """Take over what the keeper before us left; then watch the holder."""
        for found in adopt.adopt(self._records, self._groups, self._custody.open()):
            container = Container(found.record.id, Stdio(self._loop, self._flow), found.record, found.group)
            self._containers[container.id] = container
            if found.record.runtime:
                self._orphans.take()
            if found.pidfd >= 0:
                self._run(container, found.pidfd, found.streams)
        self._custody.keep(self._running_ones)

    def serve(self, listener: socket.socket) -> None:
        orders: dict[str, Order] = {
            "start": self._start,
            "wait": self._wait,
            "list": self._list,
            "signal": self._signal,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "pids": self._pids,
            "usage": self._usage,
            "resize": self._resize,
            "delete": self._delete,
        }
        Reception(self._loop, orders, {"attach": self._attach, "exec": self._exec}).open(listener)

    # Orders on a control connection

    def _start(self, request: dict[str, Any], reply: Reply) -> None:
        container_id = request["container"]["id"]
        self._records.path(container_id)  # refuses what cannot be an id
        container = self._containers.get(container_id)
        if container is None:
            container = self._containers[container_id] = Container(container_id, Stdio(self._loop, self._flow))
        if container.busy:
            raise Failure("Conflict", f"container {container_id} is {container.phase}", "stop it first")
        earlier = container.group
        before, container.record, container.starting = container.record, None, True

        def job() -> Running:
            if before is not None:
                self._starter.discard(container_id, earlier)
            return self._starter.start(request["container"], request["text"])

        def done(running: Running | None, error: BaseException | None) -> None:
            container.starting = False
            if running is None:
                self._orphans.work_ended()
                self._not_started(container, error)
                reply(None, error)
            else:
                container.record, container.group = running.record, running.group
                self._run(container, running.pidfd, running.streams)
                reply({"pid": running.record.pid, "started_at_ns": running.record.started_at_ns})
                self._custody.give(container.id, running.pidfd, running.streams)
                self._orphans.work_ended()
                if container.deleting:
                    self._kill(container)
            self._roll.answer(container.id)
            if self._starter.unprepared:
                self._loop.submit(self._starter.prepare, _ignored)

        if request["container"]["runtime"]:
            self._orphans.take()
        self._orphans.work_begins()
        self._loop.submit(job, done)

    def _not_started(self, container: Container, error: BaseException | None) -> None:
        kind = error.kind if isinstance(error, Failure) else ""
        exit_ = ExitRecord(_EXIT_CODES.get(kind, 125), False, time.time_ns())
        del self._containers[container.id]
        container.stdio.finish(exit_)
        for waiter in (*container.waiters, *container.deleting):
            waiter(exit_._asdict())

    def _wait(self, request: dict[str, Any], reply: Reply) -> None:
        container = self._find(request["id"])
        if container.record is not None and container.record.exit is not None:
            reply(container.record.exit._asdict())
        else:
            container.waiters.append(reply)

    def _list(self, request: dict[str, Any], reply: Reply) -> None:
        """With `begun`, those that start still are waited for; else they are left out."""
        begun = request.get("begun", False)  # an agent of before does not say
        starting = [each.id for each in self._containers.values() if begun and each.phase == STARTING]
        self._roll.call(starting, lambda: reply(self._listed()))

    def _listed(self) -> dict[str, Any]:
        return {
            container.id: {
                "pid": container.record.pid,
                "started_at_ns": container.record.started_at_ns,
                "exit": container.record.exit._asdict() if container.record.exit else None,
            }
            for container in self._containers.values()
            if container.record is not None
        }

    def _signal(self, request: dict[str, Any], reply: Reply) -> None:
        container = self._running(request["id"])
        number = request["number"]
        if request["all"] and container.group is not None:
            for pid in container.group.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        elif not pidfds.send_signal(container.pidfd, number):
            raise _not_running(container.id)
        reply(None)

    def _pause(self, request: dict[str, Any], reply: Reply) -> None:
        container = self._running(request["id"])
        group = container.group
        self._loop.submit(lambda: group.freeze() if group else None, reply)

    def _resume(self, request: dict[str, Any], reply: Reply) -> None:
        container = self._running(request["id"])
        group = container.group
        self._loop.submit(lambda: group.thaw() if group else None, reply)

    def _update(self, request: dict[str, Any], reply: Reply) -> None:
        """On record before it is done, so that whatever hierarchies it joins are known to who removes it."""
        container = self._running(request["id"])
        if container.record is None or container.group is None:
            raise ValueError("a running container has a record and a group")
        limits = parse_limits(request["resources"])
        groups = self._groups.theirs if container.record.runtime else self._groups
        group = groups.widened(container.group, limits)
        container.group = group
        container.record = container.record._replace(controllers=group.controllers)
        self._records.save(container.record)

        def done(_: None, error: BaseException | None) -> None:
            if self._containers.get(container.id) is not container or container.group is not group:
                self._loop.submit(group.remove, _ignored)  # it ended meanwhile, and its groups were made again
            reply(None, error)

        self._loop.submit(lambda: groups.change(group, limits), done)

    def _pids(self, request: dict[str, Any], reply: Reply) -> None:
        group = self._running(request["id"]).group
        self._loop.submit(lambda: group.pids() if group else [], reply)

    def _usage(self, request: dict[str, Any], reply: Reply) -> None:
        group = self._running(request["id"]).group
        self._loop.submit(lambda: group.usage()._asdict() if group else None, reply)

    def _resize(self, request: dict[str, Any], reply: Reply) -> None:
        self._running(request["id"]).stdio.resize(request["rows"], request["columns"])
        reply(None)

    def _delete(self, request: dict[str, Any], reply: Reply) -> None:
        container = self._containers.get(request["id"])
        if container is None:
            reply(None)
            return
        container.deleting.append(reply)
        if container.phase == RUNNING:
            self._kill(container)
        elif container.phase != STARTING and len(container.deleting) == 1:
            self._discard(container)

    # Streams

    def _attach(self, connection: Connection, request: dict[str, Any]) -> None:
        container_id = request["id"]
        container = self._containers.get(container_id)
        if container is None:  # attached before its start, so that nothing is missed
            container = self._containers[container_id] = Container(container_id, Stdio(self._loop, self._flow))
        attached = container

        def send_signal(number: int) -> None:
            if attached.phase == RUNNING:
                pidfds.send_signal(attached.pidfd, number)

        stream = Stream(connection, container.stdio, stdin=request["stdin"], signal=send_signal)
        stream.abandoned = lambda: self._forget_awaited(attached)
        stream.answer({"pid": container.record.pid if container.record else 0})

    def _exec(self, connection: Connection, request: dict[str, Any]) -> None:
        self._execs.start(connection, request, self._running(request["id"]))

    def _awaited(self) -> set[int]:
        """The children whose ends somebody waits for."""
        running = {each.record.pid for each in self._containers.values() if each.record and each.pidfd >= 0}
        return {*running, *self._execs.pids, self._custody.pid}

    # A container's life

    def _run(self, container: Container, pidfd: int, streams: Streams) -> None:
        """It runs: watch its end, move its bytes."""
        record = container.record
        if record is None:
            raise ValueError("a running container has a record")
        container.pidfd = pidfd
        container.stdio.stdin_closed = lambda: self._custody.drop(f"{container.id}/stdin")
        container.stdio.open(streams, container.log(self._records, self._close_later))
        self._loop.watch(pidfd, IN, lambda _: self._ended(container))

    def _close_later(self, fd: int) -> None:
        self._loop.submit(lambda: os.close(fd), _ignored)

    def _ended(self, container: Container) -> None:
        record, group, pidfd = container.record, container.group, container.pidfd
        if record is None or group is None:
            raise ValueError("a running container has a record and a group")
        self._loop.forget(pidfd)
        container.stdio.drain()  # before it is on record as ended: then nobody would look for its last words
        status = pidfds.exit_status(pidfd, record.pid)
        os.close(pidfd)
        container.pidfd = -1
        exit_ = exit_of(status, oom_killed=group.oom_kills() > 0)
        container.record = record.with_exit(exit_)
        self._records.save(container.record)
        waiters, container.waiters = container.waiters, []
        for waiter in waiters:
            waiter(exit_._asdict())
        # Whoever attaches from now on awaits a new start.
        stdio, container.stdio = container.stdio, Stdio(self._loop, self._flow)
        stdio.finish(exit_)
        self._custody.drop(f"{container.id}/")
        if container.deleting:
            self._discard(container)
        elif not record.own_pids:
            self._loop.submit(group.kill, _ignored)  # others of a shared pid namespace outlive the first process

    def _kill(self, container: Container) -> None:
        group = container.group
        pidfds.send_signal(container.pidfd, signal.SIGKILL)
        if group is not None:
            self._loop.submit(group.kill, _ignored)

    def _discard(self, container: Container) -> None:
        def done(_: None, error: BaseException | None) -> None:
            if error is None:
                self._containers.pop(container.id, None)
                container.stdio.finish(ExitRecord(0, False, time.time_ns(), known=False))
            replies, container.deleting = container.deleting, []
            for reply in replies:
                reply(None, error)

        group = container.group
        alone = container.record is not None and container.record.alone
        if alone and group is not None and self._starter.discarded_at_once(container.id, group):
            done(None, None)
        else:
            self._loop.submit(lambda: self._starter.discard(container.id, group, alone=alone), done)

    def _forget_awaited(self, container: Container) -> None:
        """The last one who awaited a start has left."""
        if container.awaited and not container.stdio.attached and self._containers.get(container.id) is container:
            del self._containers[container.id]

    def _running_ones(self) -> Iterator[tuple[str, int, Streams]]:
        for container in self._containers.values():
            if container.phase == RUNNING:
                yield container.id, container.pidfd, container.stdio.descriptors()

    def _find(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None or container.awaited:
            raise Failure("NotFound", f"No such container: {container_id}")
        return container

    def _running(self, container_id: str) -> Container:
        container = self._find(container_id)
        if container.phase != RUNNING:
            raise _not_running(container_id)
        return container


def _ignored(_result: Any, _error: BaseException | None) -> None:
    """For a job whose outcome the next step finds out by itself."""


def _not_running(container_id: str) -> Failure:
    return Failure("Conflict", f"container {container_id} is not running")
