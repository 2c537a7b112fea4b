"""Which manager may become a worker: never the last, never one without whom most would not answer."""

from __future__ import annotations

import msgspec
import pytest

from manager.api.role import check_promotion, demoting, with_spec
from manager.store.presence import Presence
from manager.store.view import View
from shoal.errors import Conflict
from shoal.model.base import Meta
from shoal.model.node import ManagerStatus, Node, NodeSpec, Role
from tests.unit.manager.conftest import node


def manager(id: str, member_id: str = "") -> Node:
    return msgspec.structs.replace(node(id, Role.MANAGER), manager=ManagerStatus(f"{id}:2377", member_id))


def view(*managers: Node, serving: str) -> View:
    return View([*managers, node("w1"), *(Presence(Meta(id), f"{id}:2377") for id in serving.split())])


def test_the_last_manager_stays() -> None:
    only = manager("m1")
    with pytest.raises(Conflict, match="last manager"):
        demoting(view(only, serving="m1"), only)


def test_what_is_left_must_answer() -> None:
    first, second, third = manager("m1", "1"), manager("m2", "2"), manager("m3", "3")
    with pytest.raises(Conflict, match="of the 2 managers that would be left, 2 must answer, and 1 do"):
        demoting(view(first, second, third, serving="m1 m2"), second)
    guards = demoting(view(first, second, third, serving="m1 m2"), third)
    assert {guard.key for guard in guards} == {"/node/m1", "/node/m2"}


def test_without_an_etcd_of_their_own_one_that_answers_is_enough() -> None:
    first, second, third = manager("m1"), manager("m2"), manager("m3")
    assert demoting(view(first, second, third, serving="m1"), third)
    with pytest.raises(Conflict, match="1 must answer, and 0 do"):
        demoting(view(first, second, third, serving="m1"), first)


def test_who_is_ceasing_to_be_a_manager_is_not_promoted_before_that_is_done() -> None:
    demoted = msgspec.structs.replace(manager("m2"), spec=NodeSpec(Role.WORKER))
    check_promotion(view(manager("m1"), demoted, serving="m1"), demoted)
    with pytest.raises(Conflict, match="still ceasing"):
        check_promotion(view(manager("m1"), demoted, serving="m1 m2"), demoted)
    member = msgspec.structs.replace(demoted, manager=ManagerStatus("m2:2377", "2"))
    with pytest.raises(Conflict, match="still ceasing"):
        check_promotion(view(manager("m1"), member, serving="m1"), member)


def test_a_worker_is_forgotten_as_a_manager_once_it_is_no_member() -> None:
    worker = NodeSpec(Role.WORKER)
    assert with_spec(manager("m1"), worker).manager == ManagerStatus()
    assert with_spec(manager("m1", "1"), worker).manager == ManagerStatus("m1:2377", "1")
