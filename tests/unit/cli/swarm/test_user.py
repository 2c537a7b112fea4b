"""`swarm user`: the files that it makes, what is asked of the manager, and what people are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shoal.v1 import control_pb2, types_pb2
from tests.unit.cli.manager import SECOND, Manager, Shell


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, which is also where the commands run."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_files_are_the_users_alone_and_the_key_stays_here(shoal: Shell, manager: Manager, home: Path) -> None:
    lines = shoal.lines("swarm", "user", "create", "--role", "deployer", "--ttl", "24h", "--description", "Ann", "ann")
    (asked,) = manager.of(control_pb2.CreateUserRequest)
    assert (asked.name, asked.role, asked.life_ns) == ("ann", types_pb2.USER_ROLE_DEPLOYER, 24 * 3600 * SECOND)
    key = serialization.load_pem_private_key((home / "ann/key.pem").read_bytes(), None)
    assert x509.load_pem_x509_csr(asked.csr_pem.encode()).public_key() == key.public_key()
    assert {path.name: path.read_text()[:4] for path in (home / "ann").iterdir()} == {
        "ca.pem": "ROOT",
        "cert.pem": "CERT",
        "key.pem": "----",
    }
    assert {oct(path.stat().st_mode & 0o777) for path in (home / "ann").iterdir()} == {"0o600"}
    assert oct((home / "ann").stat().st_mode & 0o777) == "0o700"
    assert lines[-1].strip() == (
        f"shoal context create NAME --docker host=10.0.0.1:2377,ca={home}/ann/ca.pem,cert={home}/ann/cert.pem,"
        f"key={home}/ann/key.pem"
    )


def test_or_a_context_is_made(shoal: Shell, manager: Manager, home: Path) -> None:
    flags = ("--role", "viewer", "--context", "rack", "--manager", "198.51.100.7:2377")
    assert shoal.lines("swarm", "user", "create", *flags, "ann")[-1] == "    shoal context use rack"
    made = json.loads((home / "config/shoal/contexts.json").read_text())["contexts"]["rack"]
    assert made["host"] == "198.51.100.7:2377"
    assert made["tls"]["key"] == f"{home}/config/shoal/rack/key.pem"
    assert os.path.exists(made["tls"]["cert"])
    again = shoal("swarm", "user", "create", *flags, "ben")
    assert (again.code, again.err) == (1, 'Error: context "rack" already exists\n')
    assert len(manager.of(control_pb2.CreateUserRequest)) == 1


def test_files_of_before_are_not_overwritten(shoal: Shell, manager: Manager, home: Path) -> None:
    (home / "ann").mkdir()
    (home / "ann/key.pem").write_text("precious")
    ran = shoal("swarm", "user", "create", "--role", "viewer", "ann")
    assert ran.code == 1
    assert "key.pem is there already; give another folder with --output" in ran.err
    assert not manager.asked


def test_a_refusal_leaves_no_key(shoal: Shell, manager: Manager, home: Path) -> None:
    manager.users["ann"] = types_pb2.User()
    ran = shoal("swarm", "user", "create", "--role", "viewer", "-o", "there", "ann")
    assert (ran.code, ran.err) == (1, "Error: user ann already exists\n")
    assert not list((home / "there").iterdir())


def test_a_role_is_asked_for_by_name(shoal: Shell, manager: Manager) -> None:
    for role in ((), ("--role", "king")):
        ran = shoal("swarm", "user", "create", *role, "ann")
        assert ran.code == 1
        assert "give --role viewer, deployer, operator, admin" in ran.err
    assert not manager.asked


def test_users_are_listed_with_what_they_are_good_for(shoal: Shell, manager: Manager) -> None:
    manager.users = {
        "ann": types_pb2.User(
            meta=types_pb2.Meta(id="ann"), role=types_pb2.USER_ROLE_ADMIN, expires_at_ns=2**62, description="Ann A."
        ),
        "ben": types_pb2.User(meta=types_pb2.Meta(id="ben"), role=types_pb2.USER_ROLE_VIEWER, expires_at_ns=1),
        "kim": types_pb2.User(meta=types_pb2.Meta(id="kim"), role=types_pb2.USER_ROLE_VIEWER, revoked_at_ns=1),
    }
    assert shoal.lines("swarm", "user", "ls", "--format", "{{.Name}} {{.Role}} {{.State}} {{.Description}}") == [
        "ann admin valid Ann A.",
        "ben viewer expired ",
        "kim viewer revoked ",
    ]
    (document,) = json.loads(shoal("swarm", "user", "inspect", "ann").out)
    assert (document["Name"], document["Role"], document["State"]) == ("ann", "admin", "valid")


def test_a_change_keeps_what_was_not_named(shoal: Shell, manager: Manager) -> None:
    manager.users["ann"] = types_pb2.User(
        meta=types_pb2.Meta(id="ann", version=7), role=types_pb2.USER_ROLE_VIEWER, description="Ann A."
    )
    assert shoal.lines("swarm", "user", "update", "--role", "operator", "ann") == ["ann"]
    assert shoal.lines("swarm", "user", "update", "--description", "", "ann") == ["ann"]
    assert manager.of(control_pb2.UpdateUserRequest) == [
        control_pb2.UpdateUserRequest(name="ann", version=7, role=types_pb2.USER_ROLE_OPERATOR, description="Ann A."),
        control_pb2.UpdateUserRequest(name="ann", version=7, role=types_pb2.USER_ROLE_VIEWER),
    ]


def test_revoke_and_remove_go_on_past_one_that_is_not_there(shoal: Shell, manager: Manager) -> None:
    manager.users["ann"] = types_pb2.User()
    assert shoal.lines("swarm", "user", "revoke", "ann") == ["ann"]
    ran = shoal("swarm", "user", "rm", "ben", "ann")
    assert (ran.code, ran.out, ran.err) == (1, "ann\n", "Error: No such user: ben\n")


def test_only_a_user_renews_itself(shoal: Shell, manager: Manager) -> None:
    ran = shoal("swarm", "user", "renew")
    assert ran.code == 1
    assert "only a user can renew itself; choose its context" in ran.err
    assert not manager.asked
