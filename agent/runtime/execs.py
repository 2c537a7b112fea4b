"""Execs: what else the keeper runs in its containers, each with a connection of its own.

`starter` makes their processes, `connection.Stream` carries their bytes. None is on record: a keeper that comes after
this one is no parent of theirs, and knows nothing of them.
"""

from __future__ import annotations

import os
from typing import Any

from agent.kernel import pidfd as pidfds
from agent.runtime.cgroups.group import Group
from agent.runtime.connection import Connection, Stream
from agent.runtime.container import Container
from agent.runtime.flow import Flow
from agent.runtime.loop import IN, Loop
from agent.runtime.orphans import Orphans
from agent.runtime.record import Record
from agent.runtime.running import Executed, exit_of
from agent.runtime.starter import Starter
from agent.runtime.stdio import Stdio


class Execs:
    """Owned by the loop's thread."""

    def __init__(self, loop: Loop, starter: Starter, orphans: Orphans, flow: Flow) -> None:
        self._loop = loop
        self._starter = starter
        self._orphans = orphans
        self._flow = flow
        self.pids: set[int] = set()

    def start(self, connection: Connection, request: dict[str, Any], container: Container) -> None:
        """In a container that runs."""
        stdio = Stdio(self._loop, self._flow)
        child: list[Executed] = []

        def send_signal(number: int) -> None:
            if child:
                pidfds.send_signal(child[0].pidfd, number)

        stream = Stream(connection, stdio, stdin=request["stdin"], signal=send_signal)

        def done(executed: Executed | None, error: BaseException | None) -> None:
            self.pids.update({executed.pid} if executed else ())
            self._orphans.work_ended()
            if executed is None:
                stream.refuse(error or ValueError("no result"))
                return
            child.append(executed)
            stream.answer({"pid": executed.pid})
            stdio.open(executed.streams)
            self._loop.watch(executed.pidfd, IN, lambda _: self._ended(executed, stdio, child))

        record, group = container.record, container.group
        if record is None or group is None:
            raise ValueError("a running container has a record and a group")
        pidfd = os.dup(container.pidfd)  # the container may end, and its pidfd be closed, while the worker works
        self._orphans.work_begins()
        self._loop.submit(lambda: self._execute(record, pidfd, group, request), done)

    def _execute(self, record: Record, pidfd: int, group: Group, request: dict[str, Any]) -> Executed:
        try:
            return self._starter.execute(record, pidfd, group, request)
        finally:
            os.close(pidfd)

    def _ended(self, executed: Executed, stdio: Stdio, child: list[Executed]) -> None:
        status = pidfds.exit_status(executed.pidfd, executed.pid)
        self.pids.discard(executed.pid)
        child.clear()
        self._loop.forget(executed.pidfd)
        try:
            stdio.finish(exit_of(status, oom_killed=False))
        finally:
            os.close(executed.pidfd)
