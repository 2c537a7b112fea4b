"""`swarm ca`: the root, and how nodes move to another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from manager.ca.authority import Authority
from shoal.tls import root_key_of
from shoal.v1 import control_pb2
from tests.unit.cli.manager import SECOND, Manager, Shell

NOW = 1_800_000_000 * SECOND


def test_prints_the_root(shoal: Shell, manager: Manager) -> None:
    manager.cluster.root_ca_pem = "PEM\n"
    assert shoal.lines("swarm", "ca") == ["PEM"]


def test_follows_every_node_until_the_end(shoal: Shell, manager: Manager) -> None:
    new = Authority.create("c1", NOW).root_ca_pem
    manager.cluster.root_ca_pem = Authority.create("c1", NOW).root_ca_pem

    def moved(name: str) -> None:
        manager.nodes[name].node.description.certificate.issuer_key = root_key_of(new)

    def over() -> None:
        manager.cluster.root_ca_pem = new
        manager.cluster.ClearField("rotation")

    manager.rotation = new
    manager.steps = [lambda: moved("n1"), lambda: moved("n3"), over]
    lines = shoal.lines("swarm", "ca", "--rotate", "--deadline", "2h")
    assert lines[:4] == [
        "0 of 3 nodes have moved, waiting for n1, n2, n3",
        "1 of 3 nodes have moved, waiting for n2, n3",
        "2 of 3 nodes have moved, waiting for n2",
        "The old root is not trusted any more; join tokens have changed.",
    ]
    assert lines[4].startswith("Left behind: n2. They come back by their old keys")
    assert "\n".join(lines[5:]) + "\n" == new
    assert manager.of(control_pb2.RotateRootRequest) == [control_pb2.RotateRootRequest(within_ns=7200 * SECOND)]


def test_an_own_root_and_a_new_life_are_passed_on(shoal: Shell, manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("ROOT")
    (tmp_path / "root.key").write_text("KEY")
    files = ("--ca-cert", f"{tmp_path}/root.pem", "--ca-key", f"{tmp_path}/root.key")
    assert shoal.lines("swarm", "ca", "--rotate", "-d", "--cert-expiry", "12h", *files) == []
    (asked,) = manager.of(control_pb2.RotateRootRequest)
    assert (asked.root_ca_pem, asked.ca_key_pem, asked.within_ns) == ("ROOT", "KEY", 3600 * SECOND)
    (update,) = manager.of(control_pb2.UpdateClusterRequest)
    assert update.spec.certificate_life_ns == 12 * 3600 * SECOND


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--detach",), "go with --rotate"),
        (("--rotate", "--ca-cert", "x"), "--ca-cert and --ca-key go together"),
        (("--rotate", "--ca-cert", "/none", "--ca-key", "/none"), "/none cannot be read"),
        (("--external-ca", "x"), "not supported"),
    ],
)
def test_what_makes_no_sense_is_refused(shoal: Shell, manager: Manager, flags: tuple[str, ...], sentence: str) -> None:
    ran = shoal("swarm", "ca", *flags)
    assert ran.code == (125 if "--external-ca" in flags else 1)
    assert sentence in ran.err
    assert not manager.of(control_pb2.RotateRootRequest)
