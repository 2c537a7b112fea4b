"""Every call that a daemon makes and that has one answer has a deadline: a silent host must not hold it up for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.v1 import blob_pb2, ca_pb2, control_pb2, dispatcher_pb2, engine_pb2, swarm_pb2

PROJECT = Path(__file__).resolve().parents[2]
UNARY = {
    method.name
    for file in (blob_pb2, ca_pb2, control_pb2, dispatcher_pb2, engine_pb2, swarm_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.client_streaming and not method.server_streaming
}


def calls(room: str) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((PROJECT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in UNARY:
                yield f"{path.relative_to(PROJECT)}:{node.lineno}: {node.func.attr}", node


@pytest.mark.parametrize("room", ["agent", "manager"])
def test_calls_of_daemons_have_deadlines(room: str) -> None:
    without = [where for where, call in calls(room) if not any(word.arg == "timeout" for word in call.keywords)]
    assert without == []


def test_there_are_such_calls() -> None:
    assert any("RenewCertificate" in where for where, _ in calls("agent"))
