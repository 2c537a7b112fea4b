"""Delegate: starts containers and execs as `starter` does, by another runtime (`foreign`)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from agent.kernel import pidfd as pidfds
from agent.kernel.descriptors import Descriptors
from agent.kernel.program import Executor
from agent.runtime import ids
from agent.runtime.cgroups.base import Layout
from agent.runtime.cgroups.group import Group
from agent.runtime.confine import Bounds
from agent.runtime.foreign import Foreign
from agent.runtime.plumbing import NOTHING, Ends, Plumber, terminal_streams
from agent.runtime.record import Record, Records
from agent.runtime.root import Root
from agent.runtime.running import Executed, Running, recorded
from agent.runtime.spec.config import Spec
from agent.runtime.spec.process import parse_process

_TERMINAL = Ends(None, None, NOTHING)  # the other runtime makes it


class Delegate:
    """Threads may share it."""

    def __init__(self, records: Records, plumber: Plumber, layout: Layout, executor: Executor, bounds: Bounds) -> None:
        self._records = records
        self._plumber = plumber
        self._foreign = Foreign(records, layout, executor)
        self._bounds = bounds
        self._inodes_tell = pidfds.inodes_tell()

    def run(self, request: Mapping[str, Any], config: Spec, record: Record, group: Group) -> Running:
        program, container = record.runtime, record.id
        with Descriptors() as opened, contextlib.ExitStack() as undo:
            ends = _TERMINAL
            if not record.terminal:
                ends = self._plumber.fifos(container, ids.owner(config.process, config), request, opened)
                undo.callback(ends.streams.close)
            self._foreign.write(container, json.loads(request["config"]), config, record.cgroup, self._bounds)
            root = Root(**{**request["rootfs"], "lower": tuple(request["rootfs"]["lower"])})
            born = self._foreign.create(program, container, root, stdio=ends.stdio)
            undo.callback(os.close, born.pidfd)
            streams = ends.streams
            if born.master >= 0:
                streams = terminal_streams(born.master)
                undo.callback(streams.close)
            # On record before it runs: its end is then this keeper's to see, or the next one's.
            record = recorded(record, born.pid, born.pidfd, inodes_tell=self._inodes_tell)
            self._foreign.start(program, container, born.pid)
            undo.pop_all()
            return Running(record, born.pidfd, group, streams)

    def execute(self, record: Record, request: Mapping[str, Any]) -> Executed:
        merged = {**self._foreign.process(record.id), **request["process"]}
        process = parse_process(merged)
        with Descriptors() as opened, contextlib.ExitStack() as undo:
            ends = _TERMINAL
            if not request["tty"]:
                ends = self._plumber.pipes((process.uid, process.gid), request, opened)
                undo.callback(ends.streams.close)
            else:
                merged["consoleSize"] = {"height": request["rows"], "width": request["columns"]}
            born = self._foreign.execute(record.runtime, record.id, merged, stdio=ends.stdio)
            undo.pop_all()
            streams = ends.streams if born.master < 0 else terminal_streams(born.master)
            return Executed(born.pid, born.pidfd, streams)
