"""Calls on nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.find import begins, cluster_of, contains, is_any, labelled, node_of, passes
from manager.api.role import check_promotion, demoting, with_spec
from manager.api.room import Room, pairs, writing
from manager.ca.revocation import revoking
from manager.control.action import touched
from manager.control.roster import check_shared
from manager.store.base import Guard, Put, Txn
from manager.store.records import encode, key_for
from shoal.codec import from_wire, to_wire
from shoal.errors import Conflict, InvalidArgument
from shoal.model.node import Node, NodeSpec, NodeState, Role
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class NodeCalls:
    _room: Room

    async def ListNodes(self, request: wire.ListNodesRequest, _context: Context) -> wire.ListNodesResponse:
        filters = pairs(request.filters)
        passes(filters, _tests(Node()))
        nodes = [node for node in self._room.mirror.nodes.values() if passes(filters, _tests(node))]
        nodes.sort(key=lambda node: (node.description.hostname, node.meta.id))
        return wire.ListNodesResponse(nodes=[self._node_view(node) for node in nodes])

    async def GetNode(self, request: wire.GetNodeRequest, _context: Context) -> wire.GetNodeResponse:
        return wire.GetNodeResponse(node=self._node_view(self._node(request.node)))

    async def UpdateNode(self, request: wire.UpdateNodeRequest, _context: Context) -> wire.UpdateNodeResponse:
        node = self._node(request.node)
        spec = from_wire(request.spec, NodeSpec)
        await self._room.check_version(node, request.version)
        if spec.role is Role.MANAGER is not node.spec.role:
            check_shared(self._room.store.kind)
        if any(not key or "=" in key for key in spec.labels):
            raise InvalidArgument("a label's key must not be empty", hint="write KEY or KEY=VALUE")
        now_ns = self._room.clock.now_ns()

        def attempt() -> Txn:
            now = self._node(node.meta.id)
            if spec.role is Role.MANAGER is not now.spec.role:
                check_promotion(self._room.mirror, now)
            demoted = spec.role is Role.WORKER is not now.spec.role
            rests_on = demoting(self._room.mirror, now) if demoted else ()
            return writing(touched(with_spec(now, spec), now_ns), rests_on)

        await self._room.change(attempt)
        return wire.UpdateNodeResponse(node=to_wire(self._node(node.meta.id), types_pb2.Node))

    async def RemoveNode(self, request: wire.RemoveNodeRequest, _context: Context) -> wire.RemoveNodeResponse:
        id = self._node(request.node).meta.id

        def attempt() -> Txn:
            node = self._node(id)
            _check_removable(node, force=request.force)
            gone = revoking(node, cluster_of(self._room.mirror), self._room.clock.now_ns())
            puts = (Put(key_for(gone), encode(gone)),)
            return Txn((Guard(key_for(node), node.meta.version),), puts, (key_for(node),))

        await self._room.change(attempt)
        return wire.RemoveNodeResponse()

    def _node(self, reference: str) -> Node:
        return node_of(self._room.mirror, reference, own_id=self._room.own_id)

    def _node_view(self, node: Node) -> wire.NodeView:
        status = ""
        if node.spec.role is Role.MANAGER:
            serves = node.meta.id in self._room.mirror.managers
            leads = node.meta.id == self._room.leader()
            status = "Unreachable" if not serves else "Leader" if leads else "Reachable"
        return wire.NodeView(node=to_wire(node, types_pb2.Node), manager_status=status)


def _check_removable(node: Node, *, force: bool) -> None:
    name = f"node {node.description.hostname} ({node.meta.id})"
    if node.spec.role is Role.MANAGER:
        raise Conflict(f"{name} is a cluster manager and cannot be removed", hint="demote it first")
    if node.manager.member_id:
        raise Conflict(f"{name} is a member of the managers' etcd yet", hint="it leaves it now; try again in a moment")
    if node.status.state is not NodeState.DOWN and not force:
        raise Conflict(
            f"{name} is not down and can't be removed", hint="run 'shoal swarm leave' there first, or use --force"
        )


def _tests(node: Node) -> dict[str, Any]:
    return {
        "id": begins(node.meta.id),
        "name": contains(node.description.hostname),
        "label": labelled(node.description.engine_labels),
        "node.label": labelled(node.spec.labels),
        "membership": is_any("accepted"),
        "role": is_any(node.spec.role.name.lower()),
    }
