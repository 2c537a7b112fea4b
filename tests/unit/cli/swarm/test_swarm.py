"""`swarm`: what is asked of the agent and the manager, and what people are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.v1 import control_pb2, swarm_pb2, types_pb2
from tests.unit.cli.manager import SECOND, Manager, Shell


def test_init_prints_the_exact_join_command(shoal: Shell, manager: Manager) -> None:
    lines = shoal.lines("swarm", "init")
    assert lines[0] == "Swarm initialized: current node (idn1) is now a manager."
    assert "    shoal swarm join --token TOKEN 10.0.0.1:2377" in lines
    (asked,) = manager.of(swarm_pb2.InitSwarmRequest)
    assert asked.availability == types_pb2.AVAILABILITY_ACTIVE
    assert asked.spec == types_pb2.ClusterSpec()


def test_init_passes_every_setting_on(shoal: Shell, manager: Manager) -> None:
    flags = {
        "--advertise-addr": "10.0.0.1:4000",
        "--listen-addr": "10.0.0.1:4000",
        "--availability": "drain",
        "--default-addr-pool": "10.64.0.0/10",
        "--default-addr-pool-mask-length": "20",
        "--cert-expiry": "24h",
        "--dispatcher-heartbeat": "1s",
        "--task-history-limit": "2",
    }
    shoal.lines("swarm", "init", *(word for pair in flags.items() for word in pair))
    (asked,) = manager.of(swarm_pb2.InitSwarmRequest)
    assert asked == swarm_pb2.InitSwarmRequest(
        advertise_address="10.0.0.1:4000",
        listen_address="10.0.0.1:4000",
        availability=types_pb2.AVAILABILITY_DRAIN,
        spec=types_pb2.ClusterSpec(
            task_history=2,
            heartbeat_ns=SECOND,
            node_timeout_ns=3 * SECOND,
            certificate_life_ns=24 * 3600 * SECOND,
            address_pool="10.64.0.0/10",
            address_pool_prefix=20,
        ),
    )


def test_join(shoal: Shell, manager: Manager) -> None:
    lines = shoal.lines("swarm", "join", "--token", "TOKEN", "--advertise-addr", "eth0", "10.0.0.1:2377")
    assert lines == ["This node joined a swarm as a worker."]
    (asked,) = manager.of(swarm_pb2.JoinSwarmRequest)
    assert (asked.token, list(asked.managers), asked.advertise_address) == ("TOKEN", ["10.0.0.1:2377"], "eth0")


def test_join_needs_a_token(shoal: Shell, manager: Manager) -> None:
    ran = shoal("swarm", "join", "10.0.0.1:2377")
    assert ran.code == 1
    assert "--token is missing" in ran.err
    assert not manager.asked


def test_join_token(shoal: Shell, manager: Manager) -> None:
    assert shoal.lines("swarm", "join-token", "-q", "worker") == ["TOKEN"]
    assert "    shoal swarm join --token TOKEN 10.0.0.1:2377" in shoal.lines("swarm", "join-token", "worker")
    rotated = shoal.lines("swarm", "join-token", "--rotate", "manager")
    assert rotated[0] == "Successfully rotated manager join token."
    assert [(each.role, each.rotate) for each in manager.of(control_pb2.GetJoinTokenRequest)] == [
        (types_pb2.ROLE_WORKER, False),
        (types_pb2.ROLE_WORKER, False),
        (types_pb2.ROLE_MANAGER, True),
    ]
    assert 'unknown role "boss"' in shoal("swarm", "join-token", "boss").err


def test_last_manager_leaves_only_by_force(shoal: Shell) -> None:
    ran = shoal("swarm", "leave")
    assert (ran.code, ran.err) == (1, "Error: You are the last manager; use --force to ignore this\n")
    assert shoal.lines("swarm", "leave", "--force") == ["Node left the swarm."]


def test_update_changes_only_what_was_said(shoal: Shell, manager: Manager) -> None:
    manager.cluster.spec.heartbeat_ns = 2 * SECOND
    assert shoal.lines("swarm", "update", "--task-history-limit", "0") == ["Swarm updated."]
    (asked,) = manager.of(control_pb2.UpdateClusterRequest)
    assert asked.version == 7
    assert asked.spec == types_pb2.ClusterSpec(name="default", task_history=0, heartbeat_ns=2 * SECOND)


def test_a_passphrase_for_backups_is_read_set_and_taken_away(shoal: Shell, manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("correct horse battery\n")
    shoal.lines("swarm", "update", "--backup-passphrase-file", str(tmp_path / "pass"))
    shoal.lines("swarm", "update", "--backup-passphrase-file", "")
    shoal.lines("swarm", "update", "--backup-keep", "3")
    asked = manager.of(control_pb2.UpdateClusterRequest)
    assert [each.backup_passphrase for each in asked] == ["correct horse battery", "", ""]
    assert [each.HasField("backup_passphrase") for each in asked] == [True, True, False]


def test_root_certificate(shoal: Shell) -> None:
    assert shoal.lines("swarm", "ca") == ["PEM"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("init", "--data-path-addr", "eth1"), "flag --data-path-addr"),
        (("ca", "--external-ca", "x"), "flag --external-ca of 'shoal swarm ca' is not supported yet"),
        (("init", "--auto-lock"), "unknown flag: --auto-lock"),
        (("init", "--cert-expiry", "90"), 'missing unit in duration "90"'),
        (("init", "--default-addr-pool", "10.0.0.0/8", "--default-addr-pool", "11.0.0.0/8"), "several"),
        (("init", "--availability", "away"), 'invalid availability "away"'),
    ],
)
def test_what_is_not_done_is_refused_by_name(shoal: Shell, manager: Manager, words: tuple[str, ...], told: str) -> None:
    ran = shoal("swarm", *words)
    assert ran.code in (1, 125)
    assert told in ran.err
    assert not manager.asked
