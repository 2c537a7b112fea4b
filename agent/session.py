"""Session: the one stream between this node and a manager; found again, with back-off, whenever it breaks.

Up: who we are, heartbeats at the manager's period, statuses (`agent/reporter.py`), the images that are held here.
Down: assignments, which the worker carries out in order. What breaks a stream (a manager that dies, a gap, a
renewed certificate) ends in a new stream to the next manager, where everything is said again; whatever runs here
goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc.aio
import msgspec

from agent.certificate import Credentials
from agent.reporter import Reporter
from agent.roster import Roster
from shoal.backoff import Backoff
from shoal.broadcast import Broadcast, Lagged
from shoal.clock import Clock
from shoal.codec import from_wire, to_wire
from shoal.errors import ShoalError, Unavailable
from shoal.model.node import NodeDescription, Role
from shoal.model.task import TaskStatus
from shoal.model.trust import Trust
from shoal.rpc import dial, error_of, translated
from shoal.tasks import first_of
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import dispatcher_pb2_grpc, types_pb2

log = logging.getLogger(__name__)

# More than connecting takes, and longer than it takes a manager to let thousands in.
WELCOME_S = 30.0
GOODBYE_S = 2.0
ASK_S = 5.0
DESCRIBE_EVERY_S = 20.0
# Sessions in a row that failed.
_UNWELCOME = 3
DEFAULT_HEARTBEAT_S = 2.0
# A manager that was not heard for this long is called no more; another one takes its nodes over soon after.
SILENCE_S = 4.5
# Where there is no other, it is rather slow than dead.
SILENCE_OF_THE_ONLY_S = 15.0
# How long connecting may take where thousands come back at once.
CONNECT_AT_MOST_S = 20.0
# Of assignments, before the worker has taken those that came first.
AHEAD_BYTES = 1 << 20
# Nodes move to a manager that serves again within this time, not all at once.
MOVE_S = 10.0
# More changes of the held images within this time make one message.
IMAGES_S = 0.2


class ImageRoom(Protocol):
    """What a session needs of `agent.image.images.Images`."""

    changes: Broadcast[None]

    def held(self) -> Sequence[tuple[str, str]]: ...


class Told(Protocol):
    """Who carries assignments out (`agent.worker.Worker`)."""

    def begin_session(self) -> None: ...
    async def assign(self, message: wire.Assignments) -> None: ...


class Trusting(Protocol):
    """Who heeds whom a manager says to let in (`agent.trust.Doorkeeper`)."""

    async def learn(self, trust: Trust) -> None: ...


class Source(msgspec.Struct, frozen=True):
    """A node that holds an image. `address` is "HOST:PORT" of its agent."""

    node_id: str
    address: str
    manifest_digest: str


class Link(msgspec.Struct, frozen=True):
    """How the session is: the manager it is connected to, or what is in the way. `met`: one stood once."""

    manager: str = ""
    error: str = ""
    met: bool = False


class Session:
    """`managers` are tried in turn; `keep_managers` is told when the cluster names others."""

    def __init__(
        self,
        credentials: Credentials,
        managers: Sequence[str],
        *,
        worker: Told,
        reporter: Reporter,
        images: ImageRoom,
        describe: Callable[[], NodeDescription],
        keep_managers: Callable[[Sequence[str]], Awaitable[None]],
        trust: Trusting,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._credentials = credentials
        self._roster = Roster(managers, chance=chance)
        self._worker = worker
        self._reporter = reporter
        self._images = images
        self._describe = describe
        self._keep_managers = keep_managers
        self._trust = trust
        self._clock = clock
        self._chance = chance
        self._backoff = Backoff(0.1, 4, chance=chance)
        self._link = Link()
        self._failures = 0
        self._moving = asyncio.Event()
        # What the cluster wants this node to be, once a manager has said so; `told` is set whenever one does.
        self.role: Role | None = None
        self.told = asyncio.Event()
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self._return_s = 0.0
        self._repaced = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._summoned = asyncio.Event()
        self._leaving = asyncio.Event()
        self._left = asyncio.Event()

    @property
    def link(self) -> Link:
        return self._link

    @property
    def managers(self) -> tuple[str, ...]:
        """Where managers listen, the one to try next first."""
        return self._roster.managers

    async def run(self) -> None:
        """Hold a stream, for as long as the node is a member."""
        while not self._leaving.is_set():
            self._summoned.clear()
            manager = self._roster.managers[0]
            try:
                await self._hold(manager)
            except ShoalError as error:
                self._note_lost(manager, error)
                self._failures += 1
                if self._failures >= _UNWELCOME:
                    # Perhaps the managers take our certificate no more; another one is asked for beside this.
                    self._credentials.outdate(0.0)
            self._roster.lost(manager)
            await self._pause(self._backoff.next())
            # One break may be this node's alone; a try that fails too tells of a manager that many nodes have lost.
            self._backoff.widen(self._return_s)
        self._left.set()
        await asyncio.Event().wait()

    def summon(self, managers: Sequence[str]) -> None:
        """Try `managers` first, and now; in a session, nothing changes."""
        if self._channel is None:
            log.info("summoned managers=%s", " ".join(managers))
            self._roster.summoned(managers)
            self._summoned.set()

    async def goodbye(self) -> None:
        """Tell the manager that this node leaves, if one can be reached at all; no new stream is made. At most 2 s."""
        self._leaving.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._left.wait()

    async def locate(self, reference: str, manifest_digest: str) -> list[Source]:
        """The nodes that hold an image. Raises Unavailable where no manager is connected."""
        if self._channel is None:
            raise Unavailable("no manager is connected to ask which nodes hold the image")
        stub = dispatcher_pb2_grpc.DispatcherServiceStub(self._channel)
        request = wire.LocateImageRequest(reference=reference, manifest_digest=manifest_digest)
        with translated():
            answer = await stub.LocateImage(request, timeout=ASK_S)
        return [Source(each.node_id, each.address, each.manifest_digest) for each in answer.sources]

    async def _hold(self, manager: str) -> None:
        """One stream, until it ends. Raises ShoalError for how it ended."""
        self._credentials.renewed.clear()
        self._moving.clear()
        identity = self._credentials.current()
        silence_s = SILENCE_S if len(self._roster.managers) > 1 else SILENCE_OF_THE_ONLY_S
        connect_s = min(self._return_s, CONNECT_AT_MOST_S)
        async with dial(
            manager, identity=identity, silence_s=silence_s, connect_s=connect_s, ahead_bytes=AHEAD_BYTES
        ) as channel:
            outgoing: asyncio.Queue[wire.SessionRequest | None] = asyncio.Queue(maxsize=1)
            # Written to, not given an iterator: gRPC 1.85 leaves one of a call that the other end has ended to wait for
            # ever (grpc/grpc#37355).
            call: Any = dispatcher_pb2_grpc.DispatcherServiceStub(channel).Session()
            try:
                welcome = await self._welcome(call, manager)
                await self._greeted(manager, welcome)
                self._channel = channel
                await self._converse(call, outgoing)
            except grpc.aio.AioRpcError as error:
                raise error_of(error) from error
            finally:
                self._channel = None
                call.cancel()

    async def _write(self, call: Any, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        """What goes up, in order: the stream has one writer. Why it cannot any more, the reader hears."""
        with contextlib.suppress(asyncio.InvalidStateError):
            while (request := await outgoing.get()) is not None:
                await call.write(request)
            await call.done_writing()
        await asyncio.Event().wait()

    async def _welcome(self, call: Any, manager: str) -> wire.Welcome:
        response: Any = None

        async def greet() -> None:
            nonlocal response
            hello = wire.Hello(description=self._description(), images=self._inventory())
            with contextlib.suppress(asyncio.InvalidStateError):
                await call.write(wire.SessionRequest(hello=hello))
            response = await call.read()

        await first_of(greet(), self._summoned.wait(), self._clock.sleep(WELCOME_S))
        if response is None:
            raise Unavailable(f"the manager at {manager} does not answer")
        if response is grpc.aio.EOF:
            raise Unavailable(f"the manager at {manager} ended the session") from None
        if response.WhichOneof("response") != "welcome":
            raise ShoalError(f"the manager at {manager} began a session without a welcome")
        return wire.Welcome.FromString(response.welcome.SerializeToString())

    async def _greeted(self, manager: str, welcome: wire.Welcome) -> None:
        """A stream stands."""
        log.info("connected manager=%s session=%s", manager, welcome.session_id)
        self._link = Link(manager=manager, met=True)
        self._failures = 0
        self._worker.begin_session()
        self._reporter.resend_all()
        await self._learn(welcome, manager)

    async def _learn(self, welcome: wire.Welcome, manager: str) -> None:
        """What `manager` says of the cluster holds from now on."""
        before = set(self._roster.managers)
        self._return_s = welcome.return_within_ns / 1e9
        if (period_s := welcome.heartbeat_ns / 1e9 or DEFAULT_HEARTBEAT_S) != self._heartbeat_s:
            self._heartbeat_s = period_s
            self._repaced.set()
        if self._roster.learn(welcome.managers, welcome.serving, connected=manager):
            self._moving.set()
        if set(self._roster.managers) != before:
            await self._keep_managers(self._roster.managers)
        await self._heed(from_wire(welcome.trust, Trust))
        if welcome.role:
            self.role = Role(welcome.role)
        self.told.set()

    async def _heed(self, trust: Trust) -> None:
        """Whom to trust from now on, and by which root to show who we are."""
        await self._trust.learn(trust)
        self._credentials.trust(trust.root_ca_pem)
        self._credentials.expect(trust.issuer_key, trust.renew_within_ns / 1e9)

    async def _converse(self, call: Any, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        # The first that ends, ends the stream: the reader by its end, the last one by a new certificate.
        await first_of(
            self._receive(call),
            self._write(call, outgoing),
            self._beat(outgoing),
            self._send_reports(outgoing),
            self._send_images(outgoing),
            self._send_description(outgoing),
            self._say_goodbye(outgoing),
            self._move(),
            self._credentials.renewed.wait(),
        )

    async def _receive(self, call: Any) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            match response.WhichOneof("response"):
                case "assignments":
                    await self._worker.assign(response.assignments)
                    # Only now: a host that cannot keep what it is told (its disk is full) must not call all the time.
                    self._backoff.reset()
                case "welcome":
                    await self._learn(response.welcome, self._link.manager)
                case "trust":
                    await self._heed(from_wire(response.trust, Trust))
        # The end may be an error, which only the call's own status tells.
        if (code := await call.code()) is not grpc.StatusCode.OK:
            raise Unavailable(f"the session ended: {await call.details() or code.name}")

    async def _beat(self, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        """At the period that the manager named last; a first one when it names another."""
        while True:
            self._repaced.clear()
            await first_of(self._clock.sleep(self._heartbeat_s), self._repaced.wait())
            await outgoing.put(wire.SessionRequest(heartbeat=wire.Heartbeat()))

    async def _send_reports(self, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        while True:
            batch = await self._reporter.next_batch()
            reports = wire.TaskReports(reports=[_report(task_id, status) for task_id, status in batch])
            await outgoing.put(wire.SessionRequest(reports=reports))

    async def _send_images(self, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        """The first change at once: who imports an image makes a service of it next."""
        with self._images.changes.subscribe() as changes:
            while True:
                await changes.wait()
                with contextlib.suppress(Lagged):
                    changes.drain()
                await outgoing.put(wire.SessionRequest(images=self._inventory()))
                await self._clock.sleep(IMAGES_S)

    async def _send_description(self, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        said = self._description()
        while True:
            await self._clock.sleep(DESCRIBE_EVERY_S)
            now = self._description()
            if now != said:
                await outgoing.put(wire.SessionRequest(description=now))
                said = now

    async def _say_goodbye(self, outgoing: asyncio.Queue[wire.SessionRequest | None]) -> None:
        """Once this node leaves; the manager then ends the stream."""
        await self._leaving.wait()
        await outgoing.put(wire.SessionRequest(goodbye=wire.Goodbye()))
        await outgoing.put(None)
        await asyncio.Event().wait()

    async def _move(self) -> None:
        """End the stream for another manager's sake, at a moment of chance."""
        await self._moving.wait()
        await self._clock.sleep(self._chance() * MOVE_S)
        log.info("moving to a manager that serves again")

    async def _pause(self, wait_s: float) -> None:
        """Between two streams, but not when this node leaves."""
        await first_of(self._leaving.wait(), self._summoned.wait(), self._clock.sleep(wait_s))

    def _description(self) -> types_pb2.NodeDescription:
        return to_wire(self._describe(), types_pb2.NodeDescription)

    def _inventory(self) -> wire.ImageInventory:
        held = [wire.HeldImage(reference=name, manifest_digest=digest) for name, digest in self._images.held()]
        return wire.ImageInventory(images=held)

    def _note_lost(self, manager: str, error: ShoalError) -> None:
        """One line per episode, not per attempt."""
        if self._leaving.is_set():
            return
        if not self._link.error:
            log.warning("no session with manager=%s, trying on: %s", manager, error)
        self._link = Link(error=str(error), met=self._link.met)


def _report(task_id: str, status: TaskStatus) -> wire.TaskReport:
    return wire.TaskReport(task_id=task_id, status=to_wire(status, types_pb2.TaskStatus))
