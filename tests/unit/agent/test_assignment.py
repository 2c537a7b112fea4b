"""Assignments, from a manager's messages to values."""

from __future__ import annotations

import msgspec
import pytest

from agent.assignment import Assignment, changed, changes_in
from shoal.codec import to_wire
from shoal.errors import InvalidArgument
from shoal.model.assignment import (
    AssignedBackend,
    AssignedPeer,
    AssignedTask,
    NetworkAssignment,
    NetworkPeer,
    Template,
)
from shoal.model.base import Meta
from shoal.model.network import Backend, Endpoint, Network
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


def test_networks_and_endpoints_are_put_together_from_what_comes_one_by_one() -> None:
    peers = [NetworkPeer("me", "10.9.0.1", NETWORK.block), NetworkPeer("other", "10.9.0.2", "10.0.2.0/24")]
    backends = [Backend("t2", "other", 2, "10.0.2.2"), Backend("t1", "me", 1, "10.0.1.2")]
    parts = [wire.AssignmentChange(peer=to_wire(AssignedPeer("n1", each), wire.AssignedPeer)) for each in peers]
    parts += [
        wire.AssignmentChange(backend=to_wire(AssignedBackend("s1", "n1", each), wire.AssignedBackend))
        for each in backends
    ]
    before = changed(Assignment(), changes_in(ALL))
    assignment = changed(before, changes_in(message(*parts)))
    (network,), (endpoint,) = assignment.mesh()
    assert network == msgspec.structs.replace(NETWORK, peers=(peers[1],))
    assert endpoint == msgspec.structs.replace(ENDPOINT, backends=(backends[1], backends[0]))
    assert not assignment.reaches_as(before)
    gone = wire.AssignmentChange(remove=True, peer=to_wire(AssignedPeer("n1", NetworkPeer("other")), wire.AssignedPeer))
    (network,), _ = changed(assignment, changes_in(message(gone))).mesh()
    assert network == NETWORK
