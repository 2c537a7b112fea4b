"""The table of rules, held against what can be called at all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import shoal.v1
from manager.api.permission import Permission
from manager.api.rule import FOR_MANAGERS, FOR_NODES, RULES
from manager.store.view import View
from shoal.access import Call
from shoal.clock import ManualClock
from shoal.errors import PermissionDenied
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.user import User, UserRole
from shoal.rpc import ENGINE_SERVICES
from shoal.tls import UserPeer

# Served where no user comes: by agents, and to who has no certificate yet.
ELSEWHERE = {f"shoal.v1.{name}Service" for name in ("Blob", "Swarm", "Join", "Summon", "Unlock")}


def calls() -> Iterator[str]:
    """Every method of every service, as it is called on the wire."""
    for module in pkgutil.iter_modules(shoal.v1.__path__):
        if not module.name.endswith("_pb2"):
            continue
        descriptor = importlib.import_module(f"shoal.v1.{module.name}").DESCRIPTOR
        for service in descriptor.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


def service_of(call: str) -> str:
    return call.rpartition("/")[0].lstrip("/")


@pytest.mark.parametrize("call", sorted(calls()))
def test_every_call_has_a_rule_or_is_no_users(call: str) -> None:
    closed = FOR_NODES | FOR_MANAGERS | ELSEWHERE
    assert (call in RULES) != (service_of(call) in closed), f"{call} needs a row in manager/api/rule.py"


def test_no_rule_is_for_a_call_that_is_not_there() -> None:
    assert set(RULES) <= set(calls())


def test_what_is_relayed_is_what_has_rules() -> None:
    assert {service_of(call) for call in RULES} == {"shoal.v1.ControlService", *ENGINE_SERVICES}


def test_a_viewer_changes_nothing_but_its_own_key() -> None:
    changes = {call for call, rule in RULES.items() if rule.changes and rule.role is UserRole.VIEWER}
    assert changes == {"/shoal.v1.ControlService/RenewUser"}


@pytest.mark.parametrize("role", list(UserRole), ids=lambda role: role.name.lower())
def test_each_role_gets_what_its_rules_say_and_nothing_else(role: UserRole) -> None:
    clock = ManualClock()
    user = User(Meta("ann"), role, key="k", expires_at_ns=clock.now_ns() + 1)
    permission = Permission(View([Cluster(Meta("c1")), user]), clock)
    allowed = set()
    for call in calls():
        try:
            permission.check(Call(call, UserPeer("ann", "c1", "k"), "ipv4:10.0.0.9:1"))
        except PermissionDenied:
            continue
        allowed.add(call)
    assert allowed == {call for call, rule in RULES.items() if rule.role <= role}
    forbidden = {
        UserRole.VIEWER: {"CreateService", "ReadLogs", "ExecContainer", "UpdateNode", "CreateUser"},
        UserRole.DEPLOYER: {"ExecContainer", "ReadArchive", "UpdateNode", "CreateVolume", "GetJoinToken", "CreateUser"},
        UserRole.OPERATOR: {"CreateUser", "UpdateCluster", "RotateRoot", "BackupCluster", "ReadAudit"},
        UserRole.ADMIN: {"Session", "RenewCertificate", "ReadBlob"},
    }
    assert not {call.rpartition("/")[2] for call in allowed} & forbidden[role]
