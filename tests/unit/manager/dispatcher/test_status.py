"""Status over a real store: what is written of what agents report, and what another manager writes instead."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from manager.control.action import change, commit
from manager.dispatcher.status import StatusWriter
from shoal.model.base import Meta
from shoal.model.node import NodeState, NodeStatus
from shoal.model.task import Task, TaskState, TaskStatus

RUNNING = TaskStatus(state=TaskState.RUNNING, pid=7)


@pytest.fixture
async def writer(manager: Any) -> StatusWriter:
    """Of the manager "m1", in whose cluster "t1" is a task of the node "w1"."""
    await manager.add(Task(Meta("t1", created_at_ns=1), "s1", 1, 1, "w1", TaskState.RUNNING, TaskStatus()))
    return StatusWriter(store=manager.store, mirror=manager.mirror, clock=manager.clock, own_id="m1")


async def hold(manager: Any, by: str) -> None:
    node = manager.mirror.nodes["w1"]
    moved = msgspec.structs.replace(node, status=NodeStatus(NodeState.READY, "", 1, by))
    await manager.mirror.reached((await commit(manager.store, [change(moved, "test")])).revision)


async def test_what_the_node_reports_is_written(manager: Any, writer: StatusWriter) -> None:
    await hold(manager, by="m1")
    writer.report("w1", "t1", RUNNING)
    await writer.flush()
    assert manager.mirror.tasks["t1"].status.pid == 7


async def test_an_older_session_does_not_overtake_a_newer_one_with_another_manager(
    manager: Any, writer: StatusWriter
) -> None:
    writer.report("w1", "t1", RUNNING)
    await hold(manager, by="m2")
    other = StatusWriter(store=manager.store, mirror=manager.mirror, clock=manager.clock, own_id="m2")
    other.report("w1", "t1", msgspec.structs.replace(RUNNING, pid=8))
    await other.flush()
    await writer.flush()
    assert manager.mirror.tasks["t1"].status.pid == 8
