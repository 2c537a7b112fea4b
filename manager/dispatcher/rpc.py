"""DispatcherService: the agents' streams on the wire, what comes up them, and who holds an image. What goes down, and
when, is `sessions`'s business.

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

from manager.control.tenure import Tenure
from manager.dispatcher.inquiry import Inquiry
from manager.dispatcher.inventory import Held, Inventory
from manager.dispatcher.liveness import Liveness
from manager.dispatcher.location import Location
from manager.dispatcher.pace import Openings, Pace
from manager.dispatcher.session import AgentSession
from manager.dispatcher.sessions import Sessions, not_serving
from manager.dispatcher.status import StatusWriter
from manager.dispatcher.withdrawal import Withdrawals
from manager.store.base import Store
from manager.store.mirror import Mirror
from shoal.channels import Channels
from shoal.clock import Clock
from shoal.codec import from_wire
from shoal.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    ShoalError,
)
from shoal.model.node import NodeDescription
from shoal.model.task import TaskStatus
from shoal.names import printable
from shoal.rpc import hang_up
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
# What a node may do: images that it tells of, bytes that describe it, statuses in a message, statuses in a second (a
# host's containers do not change that fast; all of them at once, after a break, are a burst).
IMAGES = 10_000
DESCRIPTION_BYTES = 32 << 10
REPORTS = 1_000
REPORTS_BURST = 10_000
REPORTS_PER_S = 1_000
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
        location: Location,
        channels: Channels,
        own_id: str,
        tenure: Tenure,
        leads: Callable[[], bool],
    ) -> None:
        self._mirror = mirror
        self._clock = clock
        self._inventory = inventory
        self._location = location
        self._tenure = tenure
        self._status = StatusWriter(store=store, mirror=mirror, clock=clock, own_id=own_id)
        self._liveness = Liveness(
            store=store,
            mirror=mirror,
            clock=clock,
            own_id=own_id,
            tenure=tenure,
            leads=leads,
            gone=self._gone,
        )
        self._sessions = Sessions(mirror, self._liveness, inventory, own_id=own_id, tenure=tenure, clock=clock)
        told = (mirror, self._sessions.assigner, self._sessions.known, channels)
        self.withdrawals = Withdrawals(*told, own_id=own_id, catch_up=self._sessions.catch_up, clock=clock)
        self._openings = Openings()
        self._entrance = asyncio.Semaphore(ENTERING)

    async def run(self) -> None:
        """Tell agents what changes and write what they report, for as long as the manager lives."""
        await self._liveness.adopt()
        async with Group() as group:
            group.start("sessions", self._sessions.run())
            group.start("statuses", self._status.run())
            group.start("inquiry", Inquiry(self._liveness, self._clock).run())
            await self._liveness.run()

    async def Session(
        self, request_iterator: AsyncIterator[wire.SessionRequest], context: Context
    ) -> AsyncIterator[Any]:
        node_id = self._member(context)
        if not self._tenure.lease:
            raise not_serving()
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
        session = self._sessions.begin(node_id, _held(first.hello.images))
        session.hang_up = functools.partial(hang_up, context, asyncio.current_task())
        hearing = asyncio.create_task(self._hear(session, request_iterator), name=f"session of {node_id}")
        try:
            async for response in session.responses():
                yield response
        finally:
            hearing.cancel()
            self._sessions.finish(session)

    async def LocateImage(self, request: wire.LocateImageRequest, context: Context) -> wire.LocateImageResponse:
        return await self._location.answer(self._member(context), request)

    async def AwaitWithdrawal(
        self, request: wire.AwaitWithdrawalRequest, context: Context
    ) -> wire.AwaitWithdrawalResponse:
        node_id, task = self._member(context), self._mirror.tasks.get(request.task_id)
        if task is not None and task.node_id != node_id:
            raise PermissionDenied(f"task {request.task_id} is not on node {node_id}")
        return wire.AwaitWithdrawalResponse(withdrawn=await self.withdrawals.everywhere(request.task_id))

    def _gone(self, node_id: str) -> None:
        self._sessions.gone(node_id)

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
