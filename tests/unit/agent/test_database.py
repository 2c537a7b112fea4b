"""What the agent's database keeps over restarts, and what it says when its file is bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.assignment import Assignment, Change
from agent.database import Database, Kept
from shoal.errors import Exhausted, InvalidArgument
from shoal.model.assignment import AssignedTask, Template
from shoal.model.task import TaskState, TaskStatus

TEMPLATE = Template(service_id="s1", task_version=1, service_name="web")
TASK = AssignedTask(task_id="t1", service_id="s1", task_version=1, slot=1)
ASSIGNMENT = Assignment({"s1.1": TEMPLATE}, {"t1": TASK}, {}, {})
RUNNING = TaskStatus(state=TaskState.RUNNING, pid=7)


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "agent.db", boot="one")
    await database.replace(ASSIGNMENT)
    await database.save_statuses({"t1": RUNNING})
    await database.set("address", "10.0.0.1")
    await database.close()

    again = await Database.open(tmp_path / "agent.db", boot="two")
    assert await again.assignment() == ASSIGNMENT
    assert await again.statuses() == {"t1": Kept(RUNNING, "one")}
    assert await again.setting("address") == "10.0.0.1"
    await again.close()


async def test_changes_replace_and_remove(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "agent.db", boot="one")
    await database.replace(ASSIGNMENT)
    other = AssignedTask(task_id="t2", service_id="s1", task_version=1, slot=2)
    await database.change([Change("task", "t1", None), Change("task", "t2", other)])
    assert (await database.assignment()).tasks == {"t2": other}
    await database.save_statuses({"t1": RUNNING})
    await database.forget_status("t1")
    assert await database.statuses() == {}
    await database.set("address", "x")
    await database.set("address", "")
    assert await database.setting("address") == ""
    await database.clear()
    assert await database.assignment() == Assignment({}, {}, {}, {})
    await database.close()


async def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "agent.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InvalidArgument, match="agent's database is damaged"):
        await Database.open(tmp_path / "agent.db", boot="one")


async def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "agent.db", boot="one")
    await database.replace(ASSIGNMENT)
    await database._do(database._connection.execute, "PRAGMA max_page_count=1")
    with pytest.raises(Exhausted, match="disk is full"):
        await database.save_statuses({f"t{n}": TaskStatus(message="x" * 1000) for n in range(200)})
    assert await database.assignment() == ASSIGNMENT
    assert await database.statuses() == {}
    await database.close()
