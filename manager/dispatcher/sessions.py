"""Sessions: those that agents have with this manager, one per node; who of them has news to hear, and when it is woken.

A session computes itself what it sends (`session`); what comes up is `rpc`'s business, who lives is `liveness`'s.
"""

from __future__ import annotations

import logging

from manager.control.roster import managers_of
from manager.control.tenure import Tenure
from manager.dispatcher.assigner import Assigner
from manager.dispatcher.inventory import Held, Inventory
from manager.dispatcher.judgement import is_elsewhere
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.session import AgentSession
from manager.dispatcher.trust import concerns, trust_of
from manager.store.mirror import Mirror, MirrorEvent
from manager.store.presence import Presence
from manager.store.records import Noun
from shoal.broadcast import Lagged, Subscription
from shoal.clock import Clock
from shoal.codec import to_wire
from shoal.errors import Conflict, PermissionDenied, Unavailable
from shoal.ids import new_id
from shoal.model.cluster import Cluster
from shoal.model.node import Node, Role
from shoal.tasks import Group
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2

log = logging.getLogger(__name__)

# What changes within this time goes out together; then the others have their turn, for as long as telling so many
# sessions something and hearing what they answer takes a few times over: what comes meanwhile goes in one message each.
GATHER_S = 0.01
PAUSE_PER_SESSION_S = 0.0008
PAUSE_AT_MOST_S = 1.0
# An agent that has not read for this long does not read any more.
STALLED_S = 30.0


class Sessions:
    """Of the manager on the node `own_id`. `known` are those that stand, by node; `run` must run for them to hear
    anything but what they begin with."""

    def __init__(
        self,
        mirror: Mirror,
        liveness: Liveness,
        inventory: Inventory,
        *,
        own_id: str,
        tenure: Tenure,
        clock: Clock,
    ) -> None:
        self.known: dict[str, AgentSession] = {}
        self.assigner = Assigner(mirror)
        self._mirror = mirror
        self._liveness = liveness
        self._inventory = inventory
        self._own_id = own_id
        self._tenure = tenure
        self._clock = clock
        self._events = Subscription[MirrorEvent](0)
        # Nodes that may have news to hear.
        self._stale: set[str] = set()
        self._heartbeat_s = liveness.heartbeat_s
        self._trust = trust_of(mirror)
        # As of the last greeting: a welcome must not look at every node.
        self._managers = managers_of(mirror)

    async def run(self) -> None:
        """Tell agents what changes, for as long as the manager lives."""
        async with Group() as group:
            group.start("tenure", self._send_away())
            group.start("stalled sessions", self._cut_stalled())
            await self._tell()

    def begin(self, node_id: str, held: list[Held]) -> AgentSession:
        """A session of a node that was let in, which `held` these images; one before it ends."""
        if before := self.known.get(node_id):
            before.end(Conflict(f"node {node_id} began another session"))
        session_id = new_id()
        session = self.known[node_id] = AgentSession(
            node_id,
            self.assigner,
            self._clock,
            catch_up=self.catch_up,
            welcome=lambda: self._welcome(node_id, session_id),
            trust=lambda: self._trust,
        )
        self._inventory.put(node_id, held)
        return session

    def finish(self, session: AgentSession) -> None:
        """Its call is over."""
        session.end()
        if self.known.get(session.node_id) is not session:
            return  # the node is in a newer one already
        del self.known[session.node_id]
        self._inventory.drop(session.node_id)
        if not session.said_goodbye:
            self._liveness.broken(session.node_id)

    def _welcome(self, node_id: str, session_id: str) -> wire.Welcome:
        node = self._mirror.nodes.get(node_id)
        # Who is to be a worker again stays a manager until its member has left the managers' etcd.
        manages = node is not None and (node.spec.role is Role.MANAGER or bool(node.manager.member_id))
        role = Role.MANAGER if manages else Role.WORKER
        return wire.Welcome(
            session_id=session_id,
            heartbeat_ns=int(self._liveness.heartbeat_s * 1e9),
            return_within_ns=int(self._liveness.crowd_s * 1e9),
            managers=self._managers,
            serving=len(self._mirror.managers),
            root_ca_pem=self._trust.root_ca_pem,
            role=types_pb2.Role.Value(f"ROLE_{role.name}"),
            trust=to_wire(self._trust, wire.Trust),
        )

    async def _tell(self) -> None:
        """Wake the sessions that have news to hear: those of much that happens at once together, and the more rarely
        the more of them there are."""
        with self._mirror.changes.subscribe() as self._events:
            self._look_at_everything()
            while True:
                # A session that looked at this very moment may have taken the events; what they changed is left.
                self._stale |= self.assigner.settle()
                if not self._stale:
                    await self._events.wait()
                await self._clock.sleep(GATHER_S)
                self.catch_up()
                self._stale |= self.assigner.settle()
                stale, self._stale = self._stale, set()
                woken = [session for node_id in stale if (session := self.known.get(node_id)) is not None]
                for session in woken:
                    session.wake()
                await self._clock.sleep(min(PAUSE_AT_MOST_S, len(woken) * PAUSE_PER_SESSION_S))

    def catch_up(self) -> None:
        """Take note of everything that the mirror shows."""
        distrusting = False
        try:
            for event in self._events.drain():
                self._stale |= self.assigner.apply(event)
                self._follow(event)
                distrusting = distrusting or concerns(event)
        except Lagged:
            self._look_at_everything()
        if distrusting:
            self._look_at_trust()

    def _follow(self, event: MirrorEvent) -> None:
        """What an event means for sessions, apart from assignments."""
        match event.new or event.old:
            case Node(meta=meta):
                self._check(meta.id)
                if self._heartbeat_s != self._liveness.heartbeat_s:
                    self._heartbeat_s = self._liveness.heartbeat_s
                    self._greet()
            case Presence() | Cluster():
                self._greet()
            case _:
                pass
        if isinstance(event.new, Node) and _as_manager(event.new) != _as_manager(event.old):
            self._greet()

    def _look_at_everything(self) -> None:
        """Events were missed: before the first subscription, or by lagging behind."""
        self.assigner.reload()
        self._look_at_trust()
        self._stale.update(self.known)
        for node_id in self.known:
            self._check(node_id)
        self._greet()

    def _look_at_trust(self) -> None:
        """Every agent hears whom to let in from now on."""
        trust = trust_of(self._mirror)
        if trust != self._trust:
            self._trust = trust
            for session in self.known.values():
                session.wake()

    def _check(self, node_id: str) -> None:
        """Whether the node's session here is one still."""
        session = self.known.get(node_id)
        if session is None:
            return
        node = self._mirror.nodes.get(node_id)
        if node is None:
            session.end(PermissionDenied(f"node {node_id} was removed from the cluster"))
        elif is_elsewhere(node, self._own_id):
            self._liveness.moved(node_id)
            session.end(Conflict(f"node {node_id} began a session with another manager"))

    def _greet(self) -> None:
        self._managers = managers_of(self._mirror)
        for session in self.known.values():
            session.greet()

    async def _cut_stalled(self) -> None:
        """End the sessions of agents that do not read: what waits for them would wait for ever."""
        while True:
            await self._clock.sleep(STALLED_S / 4)
            now = self._clock.monotonic()
            for session in list(self.known.values()):
                if session.waits_since is not None and now - session.waits_since > STALLED_S:
                    log.warning("node %s does not read, its session is cut", session.node_id)
                    error = Unavailable(f"node {session.node_id} has not read for {STALLED_S:.0f} s")
                    session.end(error)
                    await session.hang_up(error)

    async def _send_away(self) -> None:
        """End all sessions whenever this manager ceases to serve: another one answers for their nodes from then on."""
        while True:
            await self._tenure.over(await self._tenure.begun())
            for session in list(self.known.values()):
                session.end(not_serving())

    def gone(self, node_id: str) -> None:
        """The node was found dead."""
        if session := self.known.get(node_id):
            session.end(Unavailable("nothing was heard of this node for too long"))


def not_serving() -> Unavailable:
    return Unavailable("this manager does not serve: it has lost the store", hint="call another one")


def _as_manager(node: Noun | None) -> tuple[object, ...]:
    """What of a node's record the others are told."""
    return (node.spec.role, node.manager) if isinstance(node, Node) else ()
