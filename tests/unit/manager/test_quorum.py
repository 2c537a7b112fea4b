"""What is done about etcd's members, from the records of nodes: safe at every step that may be the last one."""

from __future__ import annotations

import msgspec

from manager.quorum import Note, Promote, Remove, moves
from manager.store.member import Member
from manager.store.view import View
from shoal.model.node import ManagerStatus, Node, Role
from tests.unit.manager.conftest import node


def manager(id: str, number: int, *, member_id: str = "", role: Role = Role.MANAGER) -> Node:
    return msgspec.structs.replace(node(id, role), manager=ManagerStatus(f"10.9.0.{number}:2377", member_id))


def member(number: int, *, learner: bool = False, name: str = "started") -> Member:
    return Member(f"{number:x}", name, f"https://10.9.0.{number}:2380", (f"10.9.0.{number}:2379",), learner)


def test_a_learner_gets_its_vote_once_it_runs() -> None:
    view = View([manager("m1", 1, member_id="1"), manager("m2", 2)])
    assert not list(moves(view, [member(1), member(2, learner=True, name="")]))
    assert list(moves(view, [member(1), member(2, learner=True)])) == [Promote("2")]


def test_who_has_a_vote_is_written_down() -> None:
    second = manager("m2", 2)
    view = View([manager("m1", 1, member_id="1"), second])
    assert list(moves(view, [member(1), member(2)])) == [Note(second, ManagerStatus("10.9.0.2:2377", "2"))]


def test_the_member_of_a_worker_is_removed_and_then_forgotten() -> None:
    demoted = manager("m2", 2, member_id="2", role=Role.WORKER)
    view = View([manager("m1", 1, member_id="1"), demoted])
    assert list(moves(view, [member(1), member(2)])) == [Remove("2")]
    assert list(moves(view, [member(1)])) == [Note(demoted, ManagerStatus())]


def test_a_learner_that_nobody_wants_any_more_is_removed() -> None:
    view = View([manager("m1", 1, member_id="1")])
    assert list(moves(view, [member(1), member(2, learner=True, name="")])) == [Remove("2")]


def test_nothing_is_left_to_do_when_all_is_as_it_should_be() -> None:
    view = View([manager("m1", 1, member_id="1"), manager("m2", 2, member_id="2"), node("w1")])
    assert not list(moves(view, [member(1), member(2)]))
