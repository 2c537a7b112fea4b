"""`swarm doctor`: a table, JSON for machines, and an exit code."""

from __future__ import annotations

import json

import pytest

from shoal.v1.control_pb2 import VERDICT_FAILURE, VERDICT_NOTE, VERDICT_OK, VERDICT_WARNING, Finding
from tests.unit.cli.manager import Manager, Shell

WELL = Finding(check="managers", verdict=VERDICT_OK, detail="1 of 1 serve")
NOTE = Finding(check="backups", verdict=VERDICT_NOTE, detail="none are taken by schedule", hint="take some")
WRONG = Finding(check="nodes", verdict=VERDICT_WARNING, detail="n2 is down: silent", hint="start its agent")


def test_all_is_well(shoal: Shell, manager: Manager) -> None:
    manager.findings = [WELL, NOTE]
    assert shoal.lines("swarm", "doctor") == [
        "CHECK      VERDICT   DETAIL",
        "managers   OK        1 of 1 serve",
        "backups    NOTE      none are taken by schedule",
        "",
        "What to do:",
        "  backups: take some",
    ]


@pytest.mark.parametrize("verdict", [VERDICT_WARNING, VERDICT_FAILURE])
def test_something_is_wrong(shoal: Shell, manager: Manager, verdict: int) -> None:
    manager.findings = [WELL, Finding(check="nodes", verdict=verdict, detail="n2 is down", hint="start its agent")]
    ran = shoal("swarm", "doctor", "-q")
    assert ran.code == 1
    assert "managers" not in ran.out
    assert ran.out.splitlines()[-1] == "  nodes: start its agent"


def test_machines_read_json(shoal: Shell, manager: Manager) -> None:
    manager.findings = [WELL, WRONG]
    ran = shoal("swarm", "doctor", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)[1] == {
        "Check": "nodes",
        "Verdict": "warning",
        "Detail": "n2 is down: silent",
        "Hint": "start its agent",
    }


def test_without_managers_the_host_tells_what_it_knows(shoal: Shell, manager: Manager) -> None:
    ran = shoal("swarm", "doctor")
    assert ran.code == 1
    assert "no quorum" in ran.out + ran.err
