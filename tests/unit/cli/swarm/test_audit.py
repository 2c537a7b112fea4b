"""`swarm audit`: what is asked of the manager, and how the record and what is wrong with it are told."""

from __future__ import annotations

import json

from shoal.v1 import control_pb2, types_pb2
from tests.unit.cli.manager import SECOND, Manager, Shell


def test_lines_are_shown_with_the_manager_s_filters(shoal: Shell, manager: Manager) -> None:
    manager.audit = [
        types_pb2.AuditEntry(
            number=7,
            at_ns=1_800_000_000 * SECOND,
            actor="user ann",
            source="10.0.0.9",
            verb="node rm",
            object="",
            decision="denied",
            outcome="not yours",
            count=12,
        )
    ]
    flags = ("--since", "1700000000", "--until", "1900000000", "--user", "ann", "--verb", "node", "--denied", "-n", "5")
    header, line = shoal.lines("swarm", "audit", *flags)
    assert header.split() == ["TIME", "ACTOR", "SOURCE", "VERB", "OBJECT", "DECISION", "OUTCOME"]
    assert line.split() == "2027-01-15T08:00:00Z user ann 10.0.0.9 node rm denied not yours (12 times)".split()
    (asked,) = manager.of(control_pb2.ReadAuditRequest)
    assert asked == control_pb2.ReadAuditRequest(
        since_ns=1_700_000_000 * SECOND,
        until_ns=1_900_000_000 * SECOND,
        user="ann",
        verb="node",
        denied=True,
        last=5,
    )
    assert json.loads(shoal.lines("swarm", "audit", "--json")[0])["Number"] == "7"
    assert shoal.lines("swarm", "audit", "--format", "{{.Verb}}") == ["node rm"]


def test_a_whole_record_gives_a_head_to_keep(shoal: Shell, manager: Manager) -> None:
    manager.verified = control_pb2.VerifyAuditResponse(lines=3, trimmed=4, head="7:ab")
    assert shoal.lines("swarm", "audit", "verify", "--head", "5:cd") == [
        "The audit record is whole: 3 lines, after 4 that were trimmed away.",
        "Head: 7:ab",
    ]
    assert manager.of(control_pb2.VerifyAuditRequest) == [control_pb2.VerifyAuditRequest(known="5:cd")]
    assert shoal.lines("swarm", "audit", "verify", "-q") == ["7:ab"]


def test_what_is_wrong_with_it_is_an_error(shoal: Shell, manager: Manager) -> None:
    manager.verified = control_pb2.VerifyAuditResponse(faults=["line 2 is missing"], more_faults=3)
    ran = shoal("swarm", "audit", "verify")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: the audit record was tampered with:\n  line 2 is missing\n  and 3 more\n"
