"""DispatcherService: the agents' streams on the wire, one per node, and who holds an image.

Who a caller is comes from its certificate, and that it is a member still from the mirror: the certificate of a
node that was removed is good for nothing here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec

from manager.control.roster import managers_of
from manager.control.tenure import Tenure
from manager.dispatcher.assigner import Assigner
from manager.dispatcher.holders import Holders
from manager.dispatcher.inventory import Held, Inventory
from manager.dispatcher.judgement import is_elsewhere
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.pace import Openings, Pace
from manager.dispatcher.session import AgentSession
from manager.dispatcher.status import StatusWriter
from manager.dispatcher.trust import concerns, trust_of
from manager.dispatcher.withdrawal import Withdrawals
from manager.store.base import Store
from manager.store.mirror import Mirror, MirrorEvent
from manager.store.presence import Presence
from manager.store.records import Noun
from shoal.broadcast import Lagged, Subscription
from shoal.channels import Channels
from shoal.clock import Clock
from shoal.codec import from_wire, to_wire
from shoal.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    ShoalError,
    Unavailable,
)
from shoal.ids import new_id
from shoal.model.cluster import Cluster
from shoal.model.node import Node, NodeDescription, NodeState, Role
from shoal.model.task import TaskStatus
from shoal.names import printable
from shoal.rpc import hang_up
from shoal.settings import AGENT_PORT
from shoal.tasks import Group
from shoal.tls import peer_of
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.dispatcher_pb2_grpc import DispatcherServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)
_MAX_HOSTNAME = 253
HELLO_S = 10.0
# What changes within this time goes out together; then the others have their turn, for as long as telling so many
# sessions something and hearing what they answer takes a few times over: what comes meanwhile goes in one message each.
GATHER_S = 0.01
PAUSE_PER_SESSION_S = 0.0008
PAUSE_AT_MOST_S = 1.0
# What a node may do: images that it tells of, bytes that describe it, statuses in a message, statuses in a second (a
# host's containers do not change that fast; all of them at once, after a break, are a burst).
IMAGES = 10_000
DESCRIPTION_BYTES = 32 << 10
REPORTS = 1_000
REPORTS_BURST = 10_000
REPORTS_PER_S = 1_000
# An agent that has not read for this long does not read any more.
STALLED_S = 30.0
# So many nodes come in at once: enough to share a write of the store, and few enough that others are served meanwhile.
ENTERING = 64


class DispatcherService(DispatcherServiceServicer):
    """Of the manager on the node `own_id`; `leads` says whether its loops decide. `run` must run for anything else to
    work."""

    def __init__(
        self,
        *,
        store: Store,
        mirror: Mirror,
        clock: Clock,
        inventory: Inventory,
        holders: Holders,
        channels: Channels,
        own_id: str,
        tenure: Tenure,
        leads: Callable[[], bool],
    ) -> None:
        self._mirror = mirror
        self._clock = clock
        self._inventory = inventory
        self._holders = holders
        self._own_id = own_id
        self._tenure = tenure
        self._assigner = Assigner(mirror)
        self._status = StatusWriter(store=store, mirror=mirror, clock=clock, own_id=own_id)
        self._liveness = Liveness(
            store=store, mirror=mirror, clock=clock, own_id=own_id, tenure=tenure, leads=leads, gone=self._gone
        )
        self._sessions: dict[str, AgentSession] = {}
        told = (mirror, self._assigner, self._sessions, channels)
        self.withdrawals = Withdrawals(*told, own_id=own_id, catch_up=self._catch_up, clock=clock)
        self._openings = Openings()
        self._events = Subscription[MirrorEvent](0)
        # Nodes that may have news to hear.
        self._stale: set[str] = set()
        self._entrance = asyncio.Semaphore(ENTERING)
        self._heartbeat_s = self._liveness.heartbeat_s
        self._trust = trust_of(mirror)
        # As of the last greeting: a welcome must not look at every node.
        self._managers = managers_of(mirror)

    async def run(self) -> None:
        """Tell agents what changes and write what they report, for as long as the manager lives."""
        await self._liveness.adopt()
        async with Group() as group:
            group.start("tenure", self._send_away())
            group.start("assignments", self._tell())
            group.start("statuses", self._status.run())
            group.start("stalled sessions", self._cut_stalled())
            await self._liveness.run()

    async def Session(
        self, request_iterator: AsyncIterator[wire.SessionRequest], context: Context
    ) -> AsyncIterator[Any]:
        node_id = self._member(context)
        if not self._tenure.lease:
            raise _not_serving()
        self._openings.count(node_id, self._clock.monotonic(), among=self._mirror.nodes.keys())
        try:
            async with asyncio.timeout(HELLO_S):
                first = await anext(request_iterator, None)
        except TimeoutError as error:
            raise DeadlineExceeded(f"node {node_id} opened a session and said nothing for {HELLO_S:.0f} s") from error
        if first is None or first.WhichOneof("request") != "hello":
            raise InvalidArgument("a session begins with hello")
        async with self._entrance:
            await self._liveness.connected(node_id, _description(first.hello.description))
        session = self._begin(node_id, first.hello.images)
        session.hang_up = functools.partial(hang_up, context, asyncio.current_task())
        hearing = asyncio.create_task(self._hear(session, request_iterator), name=f"session of {node_id}")
        try:
            async for response in session.responses():
                yield response
        finally:
            hearing.cancel()
            self._finish(session)

    async def LocateImage(self, request: wire.LocateImageRequest, context: Context) -> wire.LocateImageResponse:
        self._member(context)
        sources = []
        holders = await self._holders.locate_surely(request.reference, request.manifest_digest)
        for node_id, digest in holders:
            node = self._mirror.nodes.get(node_id)
            if node is not None and node.status.state is NodeState.READY and node.description.address:
                address = f"{node.description.address}:{AGENT_PORT}"
                sources.append(wire.ImageSource(node_id=node_id, address=address, manifest_digest=digest))
        if holders and not sources:
            raise Unavailable("the nodes that have it are away")
        return wire.LocateImageResponse(sources=sources)

    async def AwaitWithdrawal(
        self, request: wire.AwaitWithdrawalRequest, context: Context
    ) -> wire.AwaitWithdrawalResponse:
        node_id, task = self._member(context), self._mirror.tasks.get(request.task_id)
        if task is not None and task.node_id != node_id:
            raise PermissionDenied(f"task {request.task_id} is not on node {node_id}")
        return wire.AwaitWithdrawalResponse(withdrawn=await self.withdrawals.everywhere(request.task_id))

    def _member(self, context: Context) -> str:
        """The id of the node that calls. Raises PermissionDenied for one that is no member any more."""
        peer = peer_of(context)
        if peer is None:
            raise PermissionDenied("agents call over mutual TLS, on the manager's port")
        cluster = self._mirror.cluster
        if peer.node_id not in self._mirror.nodes or cluster is None or peer.cluster_id != cluster.meta.id:
            raise PermissionDenied(
                f"node {peer.node_id} was removed from the cluster", hint="leave it there and join again with a token"
            )
        return peer.node_id

    def _begin(self, node_id: str, images: wire.ImageInventory) -> AgentSession:
        if before := self._sessions.get(node_id):
            before.end(Conflict(f"node {node_id} began another session"))
        session_id = new_id()
        session = self._sessions[node_id] = AgentSession(
            node_id,
            self._assigner,
            self._clock,
            catch_up=self._catch_up,
            welcome=lambda: self._welcome(node_id, session_id),
            trust=lambda: self._trust,
        )
        self._inventory.put(node_id, _held(images))
        return session

    def _finish(self, session: AgentSession) -> None:
        session.end()
        if self._sessions.get(session.node_id) is not session:
            return  # the node is in a newer one already
        del self._sessions[session.node_id]
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

    async def _hear(self, session: AgentSession, requests: AsyncIterator[wire.SessionRequest]) -> None:
        """What comes up, until the agent ends its half or says what it may not. A flood waits in the agent's half of
        the connection, and slows down nobody else."""
        pace = Pace(burst=REPORTS_BURST, per_s=REPORTS_PER_S)
        try:
            async for request in requests:
                await self._take(session, request)
                if wait_s := pace.take(1 + len(request.reports.reports), self._clock.monotonic()):
                    await self._clock.sleep(wait_s)
                if session.said_goodbye:
                    break
        except ShoalError as error:
            session.end(error)
        except Exception as error:  # the boundary: a session that nobody listens to must not stay
            log.exception("session of node=%s failed", session.node_id)
            session.end(ShoalError(f"the session failed: {type(error).__name__}: {error}"))
        session.end()

    async def _take(self, session: AgentSession, request: wire.SessionRequest) -> None:
        node_id = session.node_id
        self._liveness.heard(node_id)
        match request.WhichOneof("request"):
            case "heartbeat":
                pass
            case "carried_out":
                session.carried_out(request.carried_out.sequence)
            case "reports":
                if len(request.reports.reports) > REPORTS:
                    raise InvalidArgument(
                        f"node {node_id} reports {len(request.reports.reports)} statuses at once, {REPORTS} are allowed"
                    )
                for report in request.reports.reports:
                    self._status.report(node_id, report.task_id, from_wire(report.status, TaskStatus))
            case "description":
                await self._liveness.described(node_id, _description(request.description))
            case "images":
                self._inventory.put(node_id, _held(request.images))
            case "goodbye":
                session.said_goodbye = True
                await self._status.flush()
                await self._liveness.left(node_id, back_within_s=request.goodbye.back_within_ns / 1e9)
            case other:
                raise InvalidArgument(f"a session does not take {other or 'an empty message'} here")

    async def _tell(self) -> None:
        """Wake the sessions that have news to hear: those of much that happens at once together, and the more rarely
        the more of them there are."""
        with self._mirror.changes.subscribe() as self._events:
            self._look_at_everything()
            while True:
                # A session that looked at this very moment may have taken the events; what they changed is left.
                self._stale |= self._assigner.settle()
                if not self._stale:
                    await self._events.wait()
                await self._clock.sleep(GATHER_S)
                self._catch_up()
                self._stale |= self._assigner.settle()
                stale, self._stale = self._stale, set()
                woken = [session for node_id in stale if (session := self._sessions.get(node_id)) is not None]
                for session in woken:
                    session.wake()
                await self._clock.sleep(min(PAUSE_AT_MOST_S, len(woken) * PAUSE_PER_SESSION_S))

    def _catch_up(self) -> None:
        """Take note of everything that the mirror shows."""
        distrusting = False
        try:
            for event in self._events.drain():
                self._stale |= self._assigner.apply(event)
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
        self._assigner.reload()
        self._look_at_trust()
        self._stale.update(self._sessions)
        for node_id in self._sessions:
            self._check(node_id)
        self._greet()

    def _look_at_trust(self) -> None:
        """Every agent hears whom to let in from now on."""
        trust = trust_of(self._mirror)
        if trust != self._trust:
            self._trust = trust
            for session in self._sessions.values():
                session.wake()

    def _check(self, node_id: str) -> None:
        """Whether the node's session here is one still."""
        session = self._sessions.get(node_id)
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
        for session in self._sessions.values():
            session.greet()

    async def _cut_stalled(self) -> None:
        """End the sessions of agents that do not read: what waits for them would wait for ever."""
        while True:
            await self._clock.sleep(STALLED_S / 4)
            now = self._clock.monotonic()
            for session in list(self._sessions.values()):
                if session.waits_since is not None and now - session.waits_since > STALLED_S:
                    log.warning("node %s does not read, its session is cut", session.node_id)
                    error = Unavailable(f"node {session.node_id} has not read for {STALLED_S:.0f} s")
                    session.end(error)
                    await session.hang_up(error)

    async def _send_away(self) -> None:
        """End all sessions whenever this manager ceases to serve: another one answers for their nodes from then on."""
        while True:
            await self._tenure.over(await self._tenure.begun())
            for session in list(self._sessions.values()):
                session.end(_not_serving())

    def _gone(self, node_id: str) -> None:
        if session := self._sessions.get(node_id):
            session.end(Unavailable("nothing was heard of this node for too long"))


def _not_serving() -> Unavailable:
    return Unavailable("this manager does not serve: it has lost the store", hint="call another one")


def _as_manager(node: Noun | None) -> tuple[object, ...]:
    """What of a node's record the others are told."""
    return (node.spec.role, node.manager) if isinstance(node, Node) else ()


def _description(message: types_pb2.NodeDescription) -> NodeDescription:
    if (size := message.ByteSize()) > DESCRIPTION_BYTES:
        raise InvalidArgument(
            f"a node describes itself in {size} bytes, {DESCRIPTION_BYTES} are allowed",
            hint="give its engine fewer labels",
        )
    described = from_wire(message, NodeDescription)
    return msgspec.structs.replace(described, hostname=printable(described.hostname)[:_MAX_HOSTNAME])


def _held(inventory: wire.ImageInventory) -> list[Held]:
    """The first of them: where an image is counts little for who has so many."""
    return [Held(image.reference, image.manifest_digest) for image in inventory.images[:IMAGES]]
