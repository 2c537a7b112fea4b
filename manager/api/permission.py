"""Permission: who may call what on a manager. The gate (`shoal/access.py`) asks it before each call and while it lasts.

Local root may do everything, and so may a manager's node, whose root that is. What a node or a user may do follows from
its record as it is now, not from its certificate: a node that was removed may do nothing, one that is no manager any
more what workers may. What a user's role is good for is in `rule`.
"""

from __future__ import annotations

from manager.api.rule import FOR_MANAGERS, FOR_NODES, RULES
from manager.ca.rotation import outlived
from manager.store.records import Noun
from manager.store.view import View
from shoal.access import Call, Gate, current
from shoal.clock import Clock
from shoal.errors import PermissionDenied
from shoal.model.cluster import Cluster
from shoal.model.node import Node, Role
from shoal.model.user import User, UserRole
from shoal.tls import Peer, UserPeer


class Grounds:
    """What the rights of nodes follow from, as a number that rises whenever it changes. It follows the view."""

    def __init__(self, view: View) -> None:  # noqa: ARG002
        self.version = 0

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        if isinstance(new or old, Cluster) or _role(old) != _role(new):
            self.version += 1


class Permission:
    def __init__(self, view: View, clock: Clock) -> None:
        self._view = view
        self._clock = clock

    def gate(self) -> Gate:
        """One that asks this, and again as often as something may have changed."""
        grounds = self._view.follower(Grounds)
        return Gate(self.check, self._clock, grounds=lambda: grounds.version)

    def check(self, call: Call) -> None:
        """Raises PermissionDenied for a call that its caller may not make."""
        match call.peer:
            case Peer():
                self._check_node(call, call.peer)
            case UserPeer():
                self._check_user(call, call.peer)
            case None:
                pass

    def _check_node(self, call: Call, peer: Peer) -> None:
        node = self._view.nodes.get(peer.node_id)
        if node is None or not self._is_ours(peer.cluster_id):
            raise PermissionDenied(
                f"node {peer.node_id} was removed from the cluster", hint="leave it there and join again with a token"
            )
        if self._view.cluster is not None and outlived(self._view.cluster, call.certificate):
            raise PermissionDenied(
                f"the certificate of node {peer.node_id} is of a root that was replaced",
                hint="its agent gets another by its old key",
            )
        if call.service in FOR_NODES:
            return
        if peer.role is not Role.MANAGER or node.spec.role is not Role.MANAGER:
            raise PermissionDenied(
                f"{call.name} of a manager is for managers of its swarm, and this node is a worker",
                hint="run the command on a manager",
            )

    def _check_user(self, call: Call, peer: UserPeer) -> None:
        user = self._view.users.get(peer.name)
        if user is None or user.key != peer.key or not self._is_ours(peer.cluster_id):
            raise PermissionDenied(
                f"the certificate of user {peer.name} counts no more", hint="an admin can make another one"
            )
        if user.revoked_at_ns:
            raise PermissionDenied(f"user {peer.name} was revoked")
        if self._clock.now_ns() >= user.expires_at_ns:
            raise PermissionDenied(f"user {peer.name} has expired", hint="an admin can make it anew")
        rule = RULES.get(call.method)
        if rule is None:
            whom = "managers" if call.service in FOR_MANAGERS else "nodes"
            raise PermissionDenied(f"{call.name} is for {whom} of the cluster, not for users")
        if user.role < rule.role:
            raise _refusal(user, f"'{rule.verb}'", rule.role)

    def _is_ours(self, cluster_id: str) -> bool:
        cluster = self._view.cluster
        return cluster is not None and cluster.meta.id == cluster_id


def require(view: View, role: UserRole, what: str) -> None:
    """Raises PermissionDenied unless whoever makes the present call has `role` at least, for something that the call
    alone does not ask for; `what` says it in a few words."""
    call = current()
    if call is None or not isinstance(call.peer, UserPeer):
        return
    user = view.users.get(call.peer.name)
    if user is None:
        raise PermissionDenied(f"user {call.peer.name} was removed")
    if user.role < role:
        raise _refusal(user, what, role)


def _role(value: Noun | None) -> Role | None:
    return value.spec.role if isinstance(value, Node) else None


def _refusal(user: User, what: str, role: UserRole) -> PermissionDenied:
    name, needed = user.meta.id, role.name.lower()
    return PermissionDenied(
        f"{what} needs the role {needed}, and user {name} is {user.role.name.lower()}",
        hint=f"an admin can change that: shoal swarm user update --role {needed} {name}",
    )
