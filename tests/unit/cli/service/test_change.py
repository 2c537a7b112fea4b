"""Commands that change services: order of calls, conflicts, messages and exit codes."""

from __future__ import annotations

import pytest

from shoal.v1 import control_pb2, types_pb2
from tests.unit.cli.manager import Manager, Shell


@pytest.fixture(autouse=True)
def services(manager: Manager) -> None:
    for name, mode in (("web", types_pb2.SERVICE_MODE_REPLICATED), ("agent", types_pb2.SERVICE_MODE_GLOBAL)):
        service = types_pb2.Service(meta=types_pb2.Meta(id=f"id{name}", version=5))
        service.spec.name, service.spec.mode = name, mode
        service.spec.task.container.image = f"{name}:2"
        manager.services[name] = service


def test_create_prints_the_id_and_what_to_mind(shoal: Shell, manager: Manager) -> None:
    manager.warnings = ["image is on no node"]
    ran = shoal("service", "create", "-d", "--name", "new", "new:1")
    assert (ran.code, ran.out, ran.err) == (0, "svc1\n", "WARNING: image is on no node\n")


def test_update_looks_again_when_somebody_else_was_faster(shoal: Shell, manager: Manager) -> None:
    manager.conflicts = 2
    assert shoal.lines("service", "update", "-d", "--replicas", "2", "web") == ["web"]
    assert len(manager.of(control_pb2.UpdateServiceRequest)) == 3


def test_update_gives_up_in_the_end(shoal: Shell, manager: Manager) -> None:
    manager.conflicts = 100
    ran = shoal("service", "update", "-d", "--replicas", "2", "web")
    assert ran.code == 1
    assert "update out of sequence" in ran.err


def test_rollback_goes_back_to_the_spec_before(shoal: Shell, manager: Manager) -> None:
    assert "does not have a previous spec" in shoal("service", "rollback", "-d", "web").err
    manager.services["web"].previous.name = "web"
    manager.services["web"].previous.task.container.image = "web:1"
    for words in (("rollback", "-d"), ("update", "-d", "--rollback")):
        assert shoal.lines("service", *words, "web") == ["web"]
        assert manager.of(control_pb2.UpdateServiceRequest)[-1].spec.task.container.image == "web:1"


def test_scale_does_what_it_can(shoal: Shell, manager: Manager) -> None:
    ran = shoal("service", "scale", "-d", "none=1", "agent=2", "web=0")
    assert (ran.code, ran.out) == (1, "web scaled to 0\n")
    assert ran.err.splitlines() == [
        "Error: No such service: none",
        "Error: agent: scale can only be used with replicated mode",
    ]
    assert manager.of(control_pb2.UpdateServiceRequest)[-1].spec.replicas == 0


@pytest.mark.parametrize("word", ["web", "web=", "=3", "web=-1", "web=many"])
def test_scale_wants_a_number(shoal: Shell, manager: Manager, word: str) -> None:
    ran = shoal("service", "scale", "-d", word)
    assert ran.code == 1
    assert f"invalid scale specifier '{word}'" in ran.err
    assert not manager.asked


def test_remove_goes_on_behind_a_failure(shoal: Shell) -> None:
    ran = shoal("service", "rm", "none", "web")
    assert (ran.code, ran.out, ran.err) == (1, "web\n", "Error: No such service: none\n")
