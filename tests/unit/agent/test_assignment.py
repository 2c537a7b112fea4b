"""Assignments, from a manager's messages to values."""

from __future__ import annotations

import pytest

from agent.assignment import Assignment, changed, changes_in
from shoal.codec import to_wire
from shoal.errors import InvalidArgument
from shoal.model.assignment import AssignedTask, NetworkAssignment, Template
from shoal.model.base import Meta
from shoal.model.network import Endpoint, Network
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2

TEMPLATE = Template(service_id="s1", task_version=2, service_name="web")
TASK = AssignedTask(task_id="t1", service_id="s1", task_version=2, slot=1)
NETWORK = NetworkAssignment(network=Network(meta=Meta(id="n1")), block="10.0.1.0/24")
ENDPOINT = Endpoint(service_id="s1", network_id="n1", address="10.0.0.2")


def message(*changes: wire.AssignmentChange) -> wire.Assignments:
    return wire.Assignments(changes=changes)


ALL = message(
    wire.AssignmentChange(template=to_wire(TEMPLATE, wire.Template)),
    wire.AssignmentChange(task=to_wire(TASK, wire.AssignedTask)),
    wire.AssignmentChange(network=to_wire(NETWORK, wire.NetworkAssignment)),
    wire.AssignmentChange(endpoint=to_wire(ENDPOINT, types_pb2.Endpoint)),
)


def test_items_arrive_by_key() -> None:
    assignment = changed(Assignment(), changes_in(ALL))
    assert assignment.tasks == {"t1": TASK}
    assert assignment.template_of(TASK) == TEMPLATE
    assert assignment.networks == {"n1": NETWORK}
    assert assignment.endpoints == {"s1.n1": ENDPOINT}
    assert changed(Assignment(), assignment.items()) == assignment


def test_removal_needs_only_the_ids() -> None:
    removal = message(
        wire.AssignmentChange(remove=True, template=wire.Template(service_id="s1", task_version=2)),
        wire.AssignmentChange(remove=True, task=wire.AssignedTask(task_id="t1")),
        wire.AssignmentChange(
            remove=True, network=wire.NetworkAssignment(network=types_pb2.Network(meta=types_pb2.Meta(id="n1")))
        ),
        wire.AssignmentChange(remove=True, endpoint=types_pb2.Endpoint(service_id="s1", network_id="n1")),
    )
    assert changed(changed(Assignment(), changes_in(ALL)), changes_in(removal)) == Assignment({}, {}, {}, {})


def test_a_task_without_its_template_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="without version 2 of service s1"):
        changed(Assignment(), changes_in(message(wire.AssignmentChange(task=to_wire(TASK, wire.AssignedTask)))))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="does not know"):
        changes_in(message(wire.AssignmentChange()))
