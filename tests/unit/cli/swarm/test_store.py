"""`swarm init --store`: which etcd is meant, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.v1 import swarm_pb2, types_pb2
from tests.unit.cli.manager import Manager, Shell


def asked(manager: Manager) -> types_pb2.StoreAccess:
    (request,) = manager.of(swarm_pb2.InitSwarmRequest)
    store: types_pb2.StoreAccess = request.store
    return store


def test_etcd_alone_is_one_that_the_managers_run(shoal: Shell, manager: Manager) -> None:
    shoal.lines("swarm", "init", "--store", "etcd")
    assert asked(manager) == types_pb2.StoreAccess(managed=True)


def test_sqlite_is_what_there_is_without_a_word(shoal: Shell, manager: Manager) -> None:
    shoal.lines("swarm", "init", "--store", "sqlite")
    assert asked(manager) == types_pb2.StoreAccess()


def test_an_etcd_that_exists_is_told_with_all_that_lets_one_in(shoal: Shell, manager: Manager, tmp_path: Path) -> None:
    flags = []
    for name in ("ca", "cert", "key", "password-file"):
        (tmp_path / name).write_text(f"{name}\n")
        flags += [f"--etcd-{name}", str(tmp_path / name)]
    endpoints = "https://e1:2379,10.0.0.2:2379"
    shoal.lines(
        "swarm", "init", "--store", "etcd", "--etcd-endpoints", endpoints, "--etcd-user", "shoal",
        "--etcd-prefix", "/ours", *flags,
    )  # fmt: skip
    assert asked(manager) == types_pb2.StoreAccess(
        endpoints=["e1:2379", "10.0.0.2:2379"],
        prefix="/ours",
        ca_pem="ca\n",
        certificate_pem="cert\n",
        key_pem="key\n",
        user="shoal",
        password="password-file",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--store", "mysql"], 'unknown store "mysql"'),
        (["--etcd-endpoints", "e1:2379"], "--etcd-endpoints goes with --store etcd"),
        (["--store", "etcd", "--etcd-user", "x"], "--etcd-user goes with --etcd-endpoints"),
        (["--store", "etcd", "--etcd-endpoints", "e1"], 'invalid etcd endpoint "e1"'),
        (["--store", "etcd", "--etcd-endpoints", "https://e1:2379"], "https:// needs --etcd-ca"),
        (["--store", "etcd", "--etcd-endpoints", "e1:2379", "--etcd-cert", "/x"], "--etcd-cert and --etcd-key go"),
        (["--store", "etcd", "--etcd-endpoints", "e1:2379", "--etcd-user", "x"], "--etcd-password-file go together"),
        (["--store", "etcd", "--etcd-endpoints", "e1:2379", "--etcd-ca", "/none"], "--etcd-ca /none cannot be read"),
    ],
)
def test_what_does_not_go_together_is_refused(shoal: Shell, manager: Manager, words: list[str], told: str) -> None:
    ran = shoal("swarm", "init", *words)
    assert ran.code == 1
    assert told in ran.err
    assert not manager.of(swarm_pb2.InitSwarmRequest)
