"""Judgement: when one of several managers may call a node dead. Pure: `liveness` asks it, and acts.

The manager that holds a node's session judges it, by what it hears. Where that manager is gone itself, the leader
does, but not before the node had time to call another one. A manager that has just begun to serve, or serves again
after it lost the store, has heard of nobody, which proves nothing; a manager that does not serve judges nobody.
"""

from __future__ import annotations

import msgspec

from shoal.model.node import Node, NodeState

# After a manager has begun to serve, nodes have this many timeouts to call.
GRACE_TIMEOUTS = 2
# Of the timeout, what is left to an agent whose stream broke off.
BROKEN_STREAM_SHARE = 2 / 3
# An agent that ended without a word on a host that lives is being started again by its supervisor, which may take long
# on a busy host; its containers run on meanwhile.
ALONE_AT_MOST_S = 30.0
# An agent that ends to be started again has as long as it asks for, but not longer.
ABSENCE_AT_MOST_S = 120.0
# More signs of life than this in a second cost a manager too much: its nodes then give them less often, and whether
# their hosts live is left to the pings of their connections.
BEATS_PER_S = 250
# A session may miss two signs of life.
BEATS_MISSED = 3
# How many nodes can come back to a manager in a second, on a busy machine; and the pace at which they are asked to.
RETURNS_PER_S = 100


class Contact(msgspec.Struct, frozen=True, gc=False):
    """The session that a manager has, or had, with a node. Times are monotonic seconds of that manager. `back_by`: an
    agent that ended in good order said when it would be back. `answered_at`: of one that did not, the host was found
    alive then."""

    heard_at: float
    broken_at: float | None = None
    back_by: float | None = None
    answered_at: float | None = None


class Judge(msgspec.Struct, frozen=True, gc=False):
    """A manager as it stands now. `since` is when it began to serve, `patience_s` how long a session may be silent,
    `crowd_s` what all nodes need to come back when they must at once."""

    node_id: str
    since: float
    leads: bool
    timeout_s: float
    patience_s: float = 0.0
    crowd_s: float = 0.0


def heartbeat_s(configured_s: float, nodes: int) -> float:
    """How often each of a manager's `nodes` gives a sign of life: as configured, or half as often, or a quarter…"""
    period_s = configured_s
    while nodes > BEATS_PER_S * period_s:
        period_s *= 2
    return period_s


def is_elsewhere(node: Node | None, manager_id: str) -> bool:
    """Whether a manager other than `manager_id` holds the newest session with `node`: an older one counts no more."""
    return node is not None and node.status.manager_id not in ("", manager_id)


def is_spared(contact: Contact | None, judge: Judge, now: float) -> bool:
    """Whether its host's answer is all that keeps a node from being called dead."""
    if contact is None or contact.broken_at is None or contact.answered_at is None:
        return False
    return _back_soon(contact.broken_at, judge) <= now


def _back_soon(broken_at: float, judge: Judge) -> float:
    """By when an agent is back that nothing else is known of."""
    return broken_at + judge.timeout_s * BROKEN_STREAM_SHARE


def deadline_of(
    node: Node, judge: Judge, contact: Contact | None, *, watched_since: float, gone_at: float | None
) -> float | None:
    """When `judge` may call `node` dead, unless it hears of it before; None while that is not its business.

    `contact` is with the judge itself. `watched_since` is when the judge first saw the node's record, `gone_at` when
    it saw the presence of the manager that holds the node go (None: it is there; `since` for one never seen).
    """
    holder = node.status.manager_id
    if node.status.state is NodeState.DOWN:
        return None
    grace = judge.since + GRACE_TIMEOUTS * judge.timeout_s + judge.crowd_s
    if holder == judge.node_id:
        if contact is None or contact.heard_at < judge.since:
            return grace
        if contact.back_by is not None:
            return contact.back_by
        silent = contact.heard_at + max(judge.timeout_s, judge.patience_s)
        if contact.broken_at is None:
            return silent
        if contact.answered_at is not None:
            return min(contact.answered_at + judge.timeout_s, contact.broken_at + ALONE_AT_MOST_S)
        return min(silent, _back_soon(contact.broken_at, judge))
    if not judge.leads:
        return None
    if not holder:
        return max(grace, watched_since + GRACE_TIMEOUTS * judge.timeout_s)
    # The whole timeout: a manager that ends in good order is gone at once, and its nodes' hosts are none the worse.
    return None if gone_at is None else max(grace, gone_at + judge.timeout_s + judge.crowd_s)
