"""Calls on nodes and on the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from manager.ca.token import JoinToken
from shoal.errors import Conflict, InvalidArgument, NotFound, Unsupported
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2 as t
from tests.unit.manager.conftest import NodeState, node


async def get(manager: Any, reference: str) -> wire.NodeView:
    return (await manager.control.GetNode(wire.GetNodeRequest(node=reference), None)).node


async def test_a_node_is_found_by_id_prefix_hostname_and_self(manager: Any) -> None:
    for reference in ("w1", "w", "host-w1"):
        assert (await get(manager, reference)).node.meta.id == "w1"
    own = await get(manager, "self")
    assert (own.node.meta.id, own.manager_status) == ("m1", "Leader")
    with pytest.raises(NotFound, match="No such node: x"):
        await get(manager, "x")


async def test_two_nodes_of_one_hostname_are_told_apart(manager: Any) -> None:
    import msgspec

    double = node("w2")
    described = msgspec.structs.replace(double.description, hostname="host-w1")
    await manager.add(msgspec.structs.replace(double, description=described))
    with pytest.raises(Conflict, match="ambiguous: 2 nodes"):
        await get(manager, "host-w1")


async def test_availability_and_labels_change(manager: Any) -> None:
    found = (await get(manager, "w1")).node
    found.spec.availability = t.AVAILABILITY_DRAIN
    found.spec.labels["zone"] = "b"
    request = wire.UpdateNodeRequest(node="w1", version=found.meta.version, spec=found.spec)
    await manager.control.UpdateNode(request, None)
    assert dict(manager.mirror.nodes["w1"].spec.labels) == {"zone": "b"}
    found.spec.labels["zone"] = "c"
    with pytest.raises(Conflict, match="out of sequence"):
        await manager.control.UpdateNode(
            wire.UpdateNodeRequest(node="w1", version=found.meta.version, spec=found.spec), None
        )


async def test_a_worker_cannot_become_a_manager_yet(manager: Any) -> None:
    found = (await get(manager, "w1")).node
    found.spec.role = t.ROLE_MANAGER
    with pytest.raises(Unsupported, match="one manager"):
        await manager.control.UpdateNode(wire.UpdateNodeRequest(node="w1", spec=found.spec), None)
    with pytest.raises(Unsupported, match="one manager"):
        await manager.control.GetJoinToken(wire.GetJoinTokenRequest(role=t.ROLE_MANAGER), None)


async def test_who_may_be_removed(manager: Any) -> None:
    with pytest.raises(Conflict, match="is a cluster manager"):
        await manager.control.RemoveNode(wire.RemoveNodeRequest(node="m1", force=True), None)
    with pytest.raises(Conflict, match="is not down and can't be removed"):
        await manager.control.RemoveNode(wire.RemoveNodeRequest(node="w1"), None)
    await manager.control.RemoveNode(wire.RemoveNodeRequest(node="w1", force=True), None)
    await manager.add(node("w2", state=NodeState.DOWN))
    await manager.control.RemoveNode(wire.RemoveNodeRequest(node="w2"), None)
    assert set(manager.mirror.nodes) == {"m1"}


async def test_tokens_rotate_and_sealed_fields_stay_inside(manager: Any) -> None:
    first = (await manager.control.GetJoinToken(wire.GetJoinTokenRequest(role=t.ROLE_WORKER), None)).token
    again = (await manager.control.GetJoinToken(wire.GetJoinTokenRequest(role=t.ROLE_WORKER), None)).token
    request = wire.GetJoinTokenRequest(role=t.ROLE_WORKER, rotate=True)
    fresh = await manager.control.GetJoinToken(request, None)
    assert first == again != fresh.token
    assert JoinToken.parse(first).fingerprint == JoinToken.parse(fresh.token).fingerprint
    assert list(fresh.managers) == ["10.9.0.9:2377"]
    shown = (await manager.control.GetCluster(wire.GetClusterRequest(), None)).cluster
    assert not (shown.sealed_ca_key or shown.sealed_worker_secret or shown.sealed_manager_secret)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heartbeat_ns": 1}, "heartbeat"),
        ({"node_timeout_ns": 1}, "two heartbeats"),
        ({"certificate_life_ns": 60}, "at least 1h"),
        ({"task_history": 5000}, "task history"),
        ({"address_pool": "10.0.0.0/33"}, "address pool"),
        ({"address_pool_prefix": 30}, "mask length"),
    ],
)
async def test_settings_that_cannot_work_are_refused(manager: Any, change: dict[str, Any], words: str) -> None:
    cluster = (await manager.control.GetCluster(wire.GetClusterRequest(), None)).cluster
    for name, value in change.items():
        setattr(cluster.spec, name, value)
    with pytest.raises(InvalidArgument, match=words):
        await manager.control.UpdateCluster(wire.UpdateClusterRequest(spec=cluster.spec), None)
