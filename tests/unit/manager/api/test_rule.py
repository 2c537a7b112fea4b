"""The table of rules, held against what can be called at all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import shoal.v1
from manager.api.rule import FOR_MANAGERS, FOR_NODES, RULES
from shoal.model.user import UserRole
from shoal.rpc import ENGINE_SERVICES

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
