"""`swarm token`: what is asked of the manager, and what people are told."""

from __future__ import annotations

from shoal.v1 import control_pb2, types_pb2
from tests.unit.cli.manager import SECOND, Manager, Shell


def test_without_flags_it_is_for_one_worker_within_fifteen_minutes(shoal: Shell, manager: Manager) -> None:
    lines = shoal.lines("swarm", "token", "create")
    assert "    shoal swarm join --token TOKEN 10.0.0.1:2377" in lines
    assert lines[-1] == "It is token tok1, and cannot be shown again."
    (asked,) = manager.of(control_pb2.CreateJoinTokenRequest)
    assert asked == control_pb2.CreateJoinTokenRequest(
        role=types_pb2.ROLE_WORKER, life_ns=900 * SECOND, uses=1, description=""
    )


def test_every_flag_is_passed_on(shoal: Shell, manager: Manager) -> None:
    flags = ("--role", "manager", "--ttl", "0", "--uses", "0", "--description", "rack 7")
    assert shoal.lines("swarm", "token", "create", "-q", *flags) == ["TOKEN"]
    (asked,) = manager.of(control_pb2.CreateJoinTokenRequest)
    assert asked == control_pb2.CreateJoinTokenRequest(role=types_pb2.ROLE_MANAGER, description="rack 7")


def test_the_list_says_what_each_is_still_good_for(shoal: Shell, manager: Manager) -> None:
    made = types_pb2.Token(meta=types_pb2.Meta(id="tok1"), role=types_pb2.ROLE_WORKER, description="rack 7", used=2)
    counted = types_pb2.Token(meta=types_pb2.Meta(id="tok2"), role=types_pb2.ROLE_WORKER, uses=1, used=1)
    manager.tokens = [
        control_pb2.TokenView(token=made, state="valid"),
        control_pb2.TokenView(token=counted, state="used up"),
    ]
    header, first, second = shoal.lines("swarm", "token", "ls", "--all")
    assert header.split() == ["ID", "ROLE", "STATE", "USES", "EXPIRES", "DESCRIPTION"]
    assert first.split() == ["tok1", "worker", "valid", "2/any", "never", "rack", "7"]
    assert second.split() == ["tok2", "worker", "used", "up", "1/1", "never"]
    assert manager.of(control_pb2.ListJoinTokensRequest)[0].all
    assert shoal.lines("swarm", "token", "ls", "--format", "{{.ID}} {{.Uses}}") == ["tok1 2/any", "tok2 1/1"]


def test_one_that_is_not_there_does_not_keep_the_others(shoal: Shell, manager: Manager) -> None:
    ran = shoal("swarm", "token", "rm", "none", "tok1")
    assert (ran.code, ran.out, ran.err) == (1, "tok1\n", "Error: No such join token: none\n")


def test_the_group_says_what_it_can_do(shoal: Shell) -> None:
    ran = shoal("swarm", "token")  # as docker: a remark, so that no pipe takes it for an answer
    assert (ran.code, ran.out, "create" in ran.err) == (0, "", True)
    assert "token" in shoal("swarm", "--help").out
