"""Autolock as docker's users know it."""

from __future__ import annotations

import io

import pytest

from shoal.v1 import control_pb2, swarm_pb2
from tests.unit.cli.manager import Manager, Shell

HOW = "To unlock a swarm manager after it restarts, run the `shoal swarm unlock`"


def test_init_and_update_tell_the_key(shoal: Shell, manager: Manager) -> None:
    lines = shoal.lines("swarm", "init", "--autolock")
    assert HOW in lines
    assert "    SHKEY-1-KEY" in lines
    assert HOW not in shoal.lines("swarm", "init")
    assert HOW in shoal.lines("swarm", "update", "--autolock")
    manager.cluster.spec.autolock = True
    assert shoal.lines("swarm", "update", "--autolock=false") == ["Swarm updated."]
    asked = manager.of(control_pb2.UpdateClusterRequest)
    assert [each.spec.autolock for each in asked] == [True, False]


def test_other_updates_leave_it_as_it_is(shoal: Shell, manager: Manager) -> None:
    manager.cluster.spec.autolock = True
    shoal.lines("swarm", "update", "--task-history-limit", "2")
    (asked,) = manager.of(control_pb2.UpdateClusterRequest)
    assert asked.spec.autolock


def test_unlock_key(shoal: Shell) -> None:
    assert shoal.lines("swarm", "unlock-key", "-q") == ["SHKEY-1-KEY"]
    lines = shoal.lines("swarm", "unlock-key", "--rotate")
    assert lines[0] == "Successfully rotated manager unlock key."
    assert "    SHKEY-1-NEW" in lines
    assert shoal.lines("swarm", "unlock-key")[0] == HOW


def test_unlock_reads_the_key_from_stdin(shoal: Shell, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SHKEY-1-KEY\n"))
    assert shoal.lines("swarm", "unlock") == []
    assert manager.of(swarm_pb2.UnlockSwarmRequest)[0].key == "SHKEY-1-KEY"
    monkeypatch.setattr("sys.stdin", io.StringIO("SHKEY-1-WRONG"))
    assert "invalid key provided" in shoal("swarm", "unlock").err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "no unlock key was given" in shoal("swarm", "unlock").err
