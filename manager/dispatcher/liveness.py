"""Liveness: which nodes are known to live, and the writing down of what changes about that.

Every message of an agent moves its node's deadline, in memory; only a change of state, or of the manager that holds
the session, reaches the store. A stream that breaks proves nothing about the host (its agent may be restarting), so
it only shortens the wait. Whose business a silent node is, and until when it has time, `judgement` says; a manager
that stood still gives everybody that much longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import msgspec

from manager.control.action import change, commit, touched
from manager.control.tenure import Tenure
from manager.dispatcher.contacts import Contacts
from manager.dispatcher.judgement import (
    ABSENCE_AT_MOST_S,
    BEATS_MISSED,
    RETURNS_PER_S,
    Judge,
    deadline_of,
    heartbeat_s,
    is_elsewhere,
    is_spared,
)
from manager.store.base import Store
from manager.store.mirror import Mirror
from shoal import defaults
from shoal.clock import Clock
from shoal.errors import Exhausted, PermissionDenied, Unavailable
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Node, NodeDescription, NodeState, NodeStatus

log = logging.getLogger(__name__)

TICK_S = 0.25
_RETRY_S = 0.02


class Liveness:
    """Of the manager on the node `own_id`; `leads` says whether its loops decide. `gone` is told of every node that it
    found dead, so that the node's session can be ended."""

    def __init__(
        self,
        *,
        store: Store,
        mirror: Mirror,
        clock: Clock,
        own_id: str,
        tenure: Tenure,
        leads: Callable[[], bool],
        gone: Callable[[str], None] = lambda _node_id: None,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._own_id = own_id
        self._tenure = tenure
        self._leads = leads
        self._gone = gone
        # The lease that all below belongs to, and when it began to count.
        self._lease = 0
        self._since = clock.monotonic()
        self._contacts = Contacts()
        self._watched: dict[str, float] = {}
        self._managers_gone: dict[str, float] = {}
        # As of `_seen`, a revision: nodes that may be this manager's to judge, and those that are not READY.
        self._seen = -1
        self._judged: set[str] = set()
        self._unready: list[str] = []
        self._failing = False

    async def adopt(self) -> None:
        """Begin: who was READY under an earlier process of this manager is UNKNOWN until it calls."""

        async def doubt(node_id: str) -> None:
            await self._settle(
                node_id,
                NodeState.UNKNOWN,
                "the manager restarted and waits for its agent",
                unless=lambda: node_id in self._contacts,
            )

        ready = [
            id
            for id, node in self._mirror.nodes.items()
            if node.status.state is NodeState.READY and node.status.manager_id in ("", self._own_id)
        ]
        await asyncio.gather(*map(doubt, ready))

    async def connected(self, node_id: str, description: NodeDescription) -> None:
        """The node's agent has said hello here. Raises PermissionDenied when the node was removed meanwhile."""
        self.heard(node_id)
        await self._settle(node_id, NodeState.READY, "", description)
        if node_id not in self._mirror.nodes:
            self.moved(node_id)
            raise PermissionDenied(f"node {node_id} was removed from the cluster", hint="join again with a token")

    async def described(self, node_id: str, description: NodeDescription) -> None:
        """The agent found its host changed. What it says in a session that it has left for another manager's is not
        news, and must not bring the node back here."""
        self.heard(node_id)
        await self._settle(node_id, NodeState.READY, "", description, unless=lambda: self._is_elsewhere(node_id))

    def heard(self, node_id: str) -> None:
        """A sign of life."""
        self._contacts.heard(node_id, self._clock.monotonic())

    def broken(self, node_id: str) -> None:
        """The node's stream ended without a word."""
        self._contacts.broke(node_id, self._clock.monotonic())

    def left_alone(self) -> Iterator[Node]:
        """Those whose stream ended without a word, and that are still this manager's to judge."""
        nodes = self._mirror.nodes
        return (nodes[id] for id in self._contacts.left_alone() if id in self._judged and id in nodes)

    def answered(self, node_id: str) -> None:
        """The host of such a node lives."""
        self._contacts.answered(node_id, self._clock.monotonic())

    def moved(self, node_id: str) -> None:
        """Another manager holds the node's session now."""
        self._contacts.forget(node_id)

    async def left(self, node_id: str, *, back_within_s: float = 0.0) -> None:
        """The agent said goodbye, for good or for a while."""
        state, message = NodeState.DOWN, "its agent said goodbye"
        if back_within_s > 0:
            now = self._clock.monotonic()
            self._contacts.broke(node_id, now, back_by=now + min(back_within_s, ABSENCE_AT_MOST_S))
            state, message = NodeState.UNKNOWN, "its agent is being started again"
        else:
            self.moved(node_id)
        await self._settle(node_id, state, message, unless=lambda: self._is_elsewhere(node_id))

    async def run(self) -> None:
        """Find the dead, for as long as the manager lives."""
        expected = self._clock.monotonic()
        while True:
            late = self._clock.monotonic() - expected
            if late > 2 * TICK_S:
                # This process stood still: what agents sent meanwhile is yet to be read.
                log.warning("stood still for %.1f s; every node gets that much longer", late)
                self._postpone(late)
            if self._tenure.lease:
                await self._look()
            expected = self._clock.monotonic() + TICK_S
            await self._clock.sleep(TICK_S)

    def _is_elsewhere(self, node_id: str) -> bool:
        return is_elsewhere(self._mirror.nodes.get(node_id), self._own_id)

    def _postpone(self, late: float) -> None:
        self._since += late
        self._watched = {id: at + late for id, at in self._watched.items()}
        self._managers_gone = {id: at + late for id, at in self._managers_gone.items()}
        self._contacts.postpone(late)

    async def _look(self) -> None:
        """Write down who died. What cannot be written is found again at the next tick."""
        self._watch()
        try:
            await asyncio.gather(*map(self._bury, self._silent()))
            await asyncio.gather(*map(self._readmit, self._wronged()))
            await asyncio.gather(*map(self._doubt, self._spared()))
        except (Exhausted, Unavailable) as error:
            if not self._failing:
                log.error("cannot write the state of nodes, trying again: %s", error)  # a full disk is no bug
            self._failing = True
        else:
            self._failing = False

    def _watch(self) -> None:
        """See who is there. What was seen under an earlier lease counts no more: others judged meanwhile."""
        if self._tenure.lease != self._lease:
            self._lease, self._since = self._tenure.lease, self._tenure.since
            self._managers_gone.clear()
            self._seen = -1
        if self._seen == self._mirror.revision:
            return  # thousands of nodes, and mostly nothing new of any
        self._seen = self._mirror.revision
        now = self._clock.monotonic()
        present, nodes = self._mirror.managers, self._mirror.nodes
        self._managers_gone = {id: at for id, at in self._managers_gone.items() if id not in present}
        self._watched = {id: self._watched.get(id, now) for id in nodes}
        self._contacts.keep(nodes.keys())
        self._judged, self._unready = set(), []
        for id, node in nodes.items():
            holder, state = node.status.manager_id, node.status.state
            if holder and holder not in present:
                self._managers_gone.setdefault(holder, now)
            if state is not NodeState.READY:
                self._unready.append(id)
            if state is not NodeState.DOWN and (holder == self._own_id or holder not in present):
                self._judged.add(id)

    def _silent(self) -> list[str]:
        """Nodes whose time is over."""
        now, judge = self._clock.monotonic(), self._judge()
        doubtful = self._contacts.doubtful(self._judged, now - judge.patience_s)
        nodes = self._mirror.nodes
        return [id for id in doubtful if id in nodes and self._is_due(nodes[id], judge, now)]

    def _judge(self) -> Judge:
        return Judge(self._own_id, self._since, self._leads(), self._timeout_s(), self._patience_s(), self.crowd_s)

    def _is_due(self, node: Node, judge: Judge, now: float) -> bool:
        id = node.meta.id
        deadline = deadline_of(
            node,
            judge,
            self._contacts.get(id),
            watched_since=self._watched.get(id, now),
            gone_at=self._managers_gone.get(node.status.manager_id),
        )
        return deadline is not None and deadline <= now

    async def _bury(self, node_id: str) -> None:
        def spared() -> bool:
            # It may call at this very moment, here or elsewhere.
            node = self._mirror.nodes.get(node_id)
            return node is None or not self._is_due(node, self._judge(), self._clock.monotonic())

        self._gone(node_id)
        await self._settle(node_id, NodeState.DOWN, "nothing was heard of its agent", unless=spared)
        node = self._mirror.nodes.get(node_id)
        if node is None or node.status.state is NodeState.DOWN:
            self._contacts.forget(node_id)

    def _wronged(self) -> list[str]:
        """Nodes that called here while they were being written down as dead, or as not heard of yet."""
        nodes = self._mirror.nodes
        stand = filter(self._contacts.stands, self._unready)
        return [id for id in stand if id in nodes and nodes[id].status.state is not NodeState.READY]

    async def _readmit(self, node_id: str) -> None:
        def hung_up() -> bool:
            return not self._contacts.stands(node_id)

        await self._settle(node_id, NodeState.READY, "", unless=hung_up)

    def _spared(self) -> list[str]:
        """Nodes that would be dead by now, did their hosts not live: they get nothing new to run."""
        now, judge = self._clock.monotonic(), self._judge()
        ready = [node.meta.id for node in self.left_alone() if node.status.state is NodeState.READY]
        return [id for id in ready if is_spared(self._contacts.get(id), judge, now)]

    async def _doubt(self, node_id: str) -> None:
        def moot() -> bool:
            return self._contacts.stands(node_id) or self._is_elsewhere(node_id)

        await self._settle(node_id, NodeState.UNKNOWN, "its host lives, its agent does not", unless=moot)

    @property
    def heartbeat_s(self) -> float:
        """How often each agent is to give a sign of life: so that all of them together do not keep a manager busy."""
        return heartbeat_s(self._spec.heartbeat_ns / 1e9, self._share)

    @property
    def crowd_s(self) -> float:
        """What this manager's nodes need to come back when they must at once."""
        return self._share / RETURNS_PER_S

    @property
    def _share(self) -> int:
        return len(self._mirror.nodes) // max(1, len(self._mirror.managers))

    @property
    def _spec(self) -> ClusterSpec:
        cluster = self._mirror.cluster
        return cluster.spec if cluster is not None else defaults.CLUSTER

    def _timeout_s(self) -> float:
        return self._spec.node_timeout_ns / 1e9

    def _patience_s(self) -> float:
        """How long a session that stands may be silent."""
        return max(self._timeout_s(), BEATS_MISSED * self.heartbeat_s)

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
        holder = "" if state is NodeState.DOWN else self._own_id
        while (node := self._mirror.nodes.get(node_id)) is not None and not unless():
            status = NodeStatus(state, message, self._clock.now_ns(), holder)
            wanted = _with(node, status, description or node.description)
            if wanted == node:
                return
            done = await commit(self._store, [change(wanted, "liveness")])
            if not done.conflicts:
                await self._mirror.reached(done.revision)
                if node.status.state is not state:
                    log.info("node %s (%s) is %s %s", node_id, wanted.description.hostname, state.name, message)
                return
            await self._clock.sleep(_RETRY_S)


def _with(node: Node, status: NodeStatus, description: NodeDescription) -> Node:
    """`node` with what is new, as of `status.since_ns`; a state that lasts keeps its own beginning."""
    now_ns = status.since_ns
    if (node.status.state, node.status.message) == (status.state, status.message):
        status = msgspec.structs.replace(status, since_ns=node.status.since_ns)
    if node.status == status and node.description == description:
        return node
    return touched(node, now_ns, status=status, description=description)
