"""Liveness: which nodes are known to live, and the writing down of what changes about that.

Every message of an agent moves its node's deadline, in memory; only a change of state reaches the store. A stream
that breaks proves nothing about the host (its agent may be restarting), so it only shortens the wait. A manager
that has just started, or that itself stood still, gives everybody time to call before it calls anybody dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from manager.control.action import change, commit, touched
from manager.store.base import Store
from manager.store.mirror import Mirror
from shoal import defaults
from shoal.clock import Clock
from shoal.errors import Exhausted, PermissionDenied, Unavailable
from shoal.model.node import Node, NodeDescription, NodeState, NodeStatus

log = logging.getLogger(__name__)

TICK_S = 0.25
# After a manager's start, nodes have this many timeouts to come back before they are DOWN.
GRACE_TIMEOUTS = 2
# Of the timeout, what is left to an agent whose stream broke off.
BROKEN_STREAM_SHARE = 2 / 3
_RETRY_S = 0.02


class Liveness:
    """`gone` is told of every node that was found dead, so that its session can be ended."""

    def __init__(
        self, *, store: Store, mirror: Mirror, clock: Clock, gone: Callable[[str], None] = lambda _node_id: None
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._gone = gone
        self._deadlines: dict[str, float] = {}
        # Nodes that have a session.
        self._connected: set[str] = set()
        self._failing = False

    async def adopt(self) -> None:
        """Begin: who was READY under the manager before is UNKNOWN until it calls."""
        for node in list(self._mirror.nodes.values()):
            if node.status.state is NodeState.READY:
                await self._settle(node.meta.id, NodeState.UNKNOWN, "the manager restarted and waits for its agent")

    async def connected(self, node_id: str, description: NodeDescription) -> None:
        """The node's agent has said hello. Raises PermissionDenied when the node was removed meanwhile."""
        self.heard(node_id)
        self._connected.add(node_id)
        await self._settle(node_id, NodeState.READY, "", description)
        if node_id not in self._mirror.nodes:
            self._forget(node_id)
            raise PermissionDenied(f"node {node_id} was removed from the cluster", hint="join again with a token")

    async def described(self, node_id: str, description: NodeDescription) -> None:
        """The agent found its host changed."""
        self.heard(node_id)
        await self._settle(node_id, NodeState.READY, "", description)

    def heard(self, node_id: str) -> None:
        """A sign of life."""
        self._deadlines[node_id] = self._clock.monotonic() + self._timeout_s()

    def broken(self, node_id: str) -> None:
        """The node's stream ended without a word."""
        self._connected.discard(node_id)
        soon = self._clock.monotonic() + self._timeout_s() * BROKEN_STREAM_SHARE
        self._deadlines[node_id] = min(self._deadlines.get(node_id, soon), soon)

    async def left(self, node_id: str) -> None:
        """The agent said goodbye."""
        self._forget(node_id)
        await self._settle(node_id, NodeState.DOWN, "its agent said goodbye")

    async def run(self) -> None:
        """Find the dead, for as long as the manager lives."""
        expected = self._clock.monotonic()
        while True:
            late = self._clock.monotonic() - expected
            if late > 2 * TICK_S:
                # This process stood still: what agents sent meanwhile is yet to be read.
                log.warning("stood still for %.1f s; every node gets that much longer", late)
                self._deadlines = {node_id: at + late for node_id, at in self._deadlines.items()}
            await self._look()
            expected = self._clock.monotonic() + TICK_S
            await self._clock.sleep(TICK_S)

    async def _look(self) -> None:
        """Write down who died. What cannot be written is found again at the next tick."""
        try:
            await self._bury()
            await self._correct()
        except (Exhausted, Unavailable) as error:
            if not self._failing:
                log.error("cannot write the state of nodes, trying again: %s", error)  # a full disk is no bug
            self._failing = True
        else:
            self._failing = False

    async def _bury(self) -> None:
        now = self._clock.monotonic()
        grace = now + GRACE_TIMEOUTS * self._timeout_s()
        self._deadlines = {id: at for id, at in self._deadlines.items() if id in self._mirror.nodes}
        dead = [
            node.meta.id
            for node in self._mirror.nodes.values()
            if node.status.state is not NodeState.DOWN and self._deadlines.setdefault(node.meta.id, grace) <= now
        ]

        async def bury(node_id: str) -> None:
            self._connected.discard(node_id)
            self._gone(node_id)
            await self._settle(
                node_id,
                NodeState.DOWN,
                "nothing was heard of its agent",
                # It may call at this very moment.
                unless=lambda: self._deadlines.get(node_id, now) > now,
            )
            if self._deadlines.get(node_id, now) <= now:
                self._deadlines.pop(node_id, None)

        await asyncio.gather(*map(bury, dead))

    async def _correct(self) -> None:
        """A node that called while it was being written down as dead is READY."""
        wrong = [
            node_id
            for node_id in self._connected
            if (node := self._mirror.nodes.get(node_id)) is not None and node.status.state is NodeState.DOWN
        ]
        await asyncio.gather(*map(self._readmit, wrong))

    async def _readmit(self, node_id: str) -> None:
        await self._settle(node_id, NodeState.READY, "", unless=lambda: node_id not in self._connected)

    def _forget(self, node_id: str) -> None:
        self._connected.discard(node_id)
        self._deadlines.pop(node_id, None)

    def _timeout_s(self) -> float:
        cluster = self._mirror.cluster
        spec = cluster.spec if cluster is not None else defaults.CLUSTER
        return spec.node_timeout_ns / 1e9

    async def _settle(
        self,
        node_id: str,
        state: NodeState,
        message: str,
        description: NodeDescription | None = None,
        *,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write the node's state, as often as somebody else changes its record at the same moment, until `unless`."""
        while (node := self._mirror.nodes.get(node_id)) is not None and not unless():
            wanted = _with(node, state, message, self._clock.now_ns(), description)
            if wanted == node:
                return
            done = await commit(self._store, [change(wanted, "liveness")])
            if not done.conflicts:
                await self._mirror.reached(done.revision)
                if node.status.state is not state:
                    log.info("node %s (%s) is %s %s", node_id, wanted.description.hostname, state.name, message)
                return
            await self._clock.sleep(_RETRY_S)


def _with(node: Node, state: NodeState, message: str, now_ns: int, description: NodeDescription | None) -> Node:
    changed = msgspec.structs.replace(node, description=description or node.description)
    if node.status.state is not state or node.status.message != message:
        changed = msgspec.structs.replace(changed, status=NodeStatus(state, message, now_ns))
    return node if changed == node else touched(changed, now_ns)
