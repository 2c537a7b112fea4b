"""What a container's state file says after its writer was killed at whatever instant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.record import EXITED, RUNNING, STARTING, ExitRecord, Record, Records
from agent.runtime.spec import config as specs

CONFIG = {"process": {"args": ["true"]}, "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}}


def ordered(config: dict[str, Any] = CONFIG) -> tuple[Record, bytes]:
    container = {
        "id": "c", "config": json.dumps(config), "cgroup_parent": "shoal", "log_path": "/log", "log_max_bytes": 7,
        "log_max_files": 2, "tty": False, "runtime": "", "journal": {"A": "é"},
    }  # fmt: skip
    return Record.ordered(container, specs.parse(config), "boot"), json.dumps({"container": container}).encode()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records(tmp_path)
    record, order = ordered()
    records.make("c")
    records.begin(record, order)
    return records


def known(records: Records) -> Record | None:
    ((name, record),) = records.all()
    assert name == "c"
    return record


def changes(record: Record) -> Iterator[Record]:
    running = record._replace(phase=RUNNING, controllers=("memory",), pid=5, inode=6, started_at_ns=7)
    yield running
    yield running._replace(controllers=("memory", "pids"))
    yield running._replace(controllers=("memory", "pids")).with_exit(ExitRecord(3, True, 9))


def test_a_start_is_on_record_before_anything_else_and_its_configuration_with_it(records: Records) -> None:
    assert known(records) == ordered()[0]
    assert records.config("c") == CONFIG
    assert (ordered()[0].phase, ordered()[0].cgroup, ordered()[0].own_pids) == (STARTING, "shoal/c", True)


@pytest.mark.parametrize(("path", "cgroup"), [("", "shoal/c"), ("web/1", "shoal/web/1"), ("/own/1", "own/1")])
def test_where_its_cgroup_is(path: str, cgroup: str) -> None:
    assert ordered({**CONFIG, "linux": {**CONFIG["linux"], "cgroupsPath": path}})[0].cgroup == cgroup


def test_what_is_written_last_counts_and_what_is_torn_is_as_if_it_had_not_been(records: Records) -> None:
    path = records.directory / "c" / "state"
    before = ordered()[0]
    for record in changes(before):
        whole = path.read_bytes()
        records.save(record)
        written = path.read_bytes()
        for length in range(len(whole), len(written)):
            path.write_bytes(written[:length])
            assert known(records) == before
        path.write_bytes(written[:-1])
        records.save(record)  # after a torn line
        assert known(records) == record
        before = record
    assert before.phase == EXITED


def test_a_torn_order_is_as_good_as_none(records: Records) -> None:
    path = records.directory / "c" / "state"
    written = path.read_bytes()
    for length in range(len(written)):
        path.write_bytes(written[:length])
        assert known(records) is None
