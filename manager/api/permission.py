"""Permission: who may call what on a manager. The gate (`shoal/access.py`) asks it before each call and while it lasts.

Local root may do everything. What a node may do follows from its record, not from its certificate alone: one that was
removed may do nothing, one that is no manager any more what workers may.
"""

from __future__ import annotations

from manager.store.view import View
from shoal.access import Call
from shoal.errors import PermissionDenied
from shoal.model.node import Role

# What agents of all nodes call.
MEMBERS_SERVICES = frozenset({"shoal.v1.DispatcherService", "shoal.v1.CertificateService"})


class Permission:
    def __init__(self, view: View) -> None:
        self._view = view

    def check(self, call: Call) -> None:
        """Raises PermissionDenied for a call that its caller may not make."""
        peer, cluster = call.peer, self._view.cluster
        if peer is None:
            return
        node = self._view.nodes.get(peer.node_id)
        if node is None or cluster is None or peer.cluster_id != cluster.meta.id:
            raise PermissionDenied(
                f"node {peer.node_id} was removed from the cluster", hint="leave it there and join again with a token"
            )
        if call.service in MEMBERS_SERVICES:
            return
        if peer.role is not Role.MANAGER or node.spec.role is not Role.MANAGER:
            raise PermissionDenied(
                f"{call.name} of a manager is for managers of its swarm, and this node is a worker",
                hint="run the command on a manager",
            )
