"""Admission: on what ground a host is let into the cluster. Pure; `rpc` acts on it.

The ground is a join token: one of the two that always hold, or one that was made for an occasion, which loses a use
in the transaction that writes the new node. This module is also the controller that forgets tokens a week after
their end, so that until then who comes too late is told why.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from manager.ca.authority import Seal
from manager.ca.token import JoinToken, fingerprint, token_of
from manager.control.action import delete, touched
from manager.control.controller import NOTHING, Decision, Mint
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal import defaults
from shoal.errors import PermissionDenied
from shoal.ids import base36, new_id
from shoal.model.cluster import Cluster
from shoal.model.node import Node, NodeState, Role
from shoal.model.token import Token

name = "admission"
kinds = frozenset({"token"})
KEPT_NS = 7 * 24 * 3600 * defaults.SECOND_NS
VALID = "valid"


class WrongToken(PermissionDenied):
    """A token that the cluster does not know: perhaps a guess."""

    def __init__(self) -> None:
        super().__init__(
            "the join token is not valid for this cluster",
            hint="get the present one with 'shoal swarm join-token worker' on a manager",
        )


class Ground(msgspec.Struct, frozen=True):
    """What lets a host in, and as what. `token` is the record that pays for it; None for a role's own token."""

    role: Role
    token: Token | None = None


def ground_of(view: View, cluster: Cluster, seal: Seal, shown: JoinToken) -> Ground:
    """Whatever its state is now. Raises WrongToken for a token of nobody's.

    All that the cluster knows are compared, whatever comes of the first: the delay is the same for every wrong one.
    """
    held = [Ground(role) for role in Role if token_of(cluster, role, seal).same(shown)]
    digest = hash_of(shown.secret)
    held += [
        Ground(token.role, token) for token in view.tokens.values() if hmac.compare_digest(token.secret_hash, digest)
    ]
    if not held or not hmac.compare_digest(shown.fingerprint, fingerprint(cluster.root_ca_pem)):
        raise WrongToken
    return held[0]


def check(token: Token, now_ns: int) -> None:
    """Raises PermissionDenied for a token that lets nobody in any more."""
    match state_of(token, now_ns):
        case "revoked":
            why = "was revoked"
        case "expired":
            why = "has expired"
        case "used up":
            why = f"has let in {token.used} of {token.uses} hosts"
        case _:
            return
    raise PermissionDenied(
        f"the join token {token.meta.id} {why}", hint="make another with 'shoal swarm token create' on a manager"
    )


def state_of(token: Token, now_ns: int) -> str:
    """In a word or two, as people see it."""
    if token.revoked_at_ns:
        return "revoked"
    if token.expires_at_ns and now_ns >= token.expires_at_ns:
        return "expired"
    return "used up" if token.uses and token.used >= token.uses else VALID


def spent(token: Token, now_ns: int) -> Token:
    """The token with one use less."""
    return touched(token, now_ns, used=token.used + 1)


def joined_before(view: View, key: str) -> Node | None:
    """The node that came with `key` (`shoal.tls.key_of`) and never called: a join of the same host that broke off
    after its record was written."""
    node = view.nodes.get(_id_of(key))
    return node if node is not None and node.status.state is NodeState.UNKNOWN else None


def free_id(view: View, key: str) -> str:
    """An id for the host that comes with `key`: the one by which it is found again, unless another had it."""
    id = _id_of(key)
    return new_id() if id in view.nodes or id in view.revocations else id


def _id_of(key: str) -> str:
    return base36(int(key, 16), 25)


def hash_of(secret: str) -> bytes:
    """The form in which the store keeps a secret. It has 128 bits of chance: nothing is gained by a slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:  # noqa: ARG001
    return (event.id,) if event.new is not None else ()


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    token = view.tokens.get(key)
    if token is None:
        return NOTHING
    last_use_ns = token.meta.updated_at_ns if token.uses and token.used >= token.uses else 0
    ends = [at_ns for at_ns in (token.revoked_at_ns, token.expires_at_ns, last_use_ns) if at_ns]
    if not ends:
        return NOTHING
    ended_ns = min(ends)
    if now_ns < ended_ns + KEPT_NS:
        return Decision(requeue_at_ns=ended_ns + KEPT_NS)
    return Decision((delete(token, "it let nobody in for a week"),))
