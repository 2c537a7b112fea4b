"""Session: the one stream between this node and a manager; found again, with back-off, whenever it breaks.

Up goes what this node says by itself (`agent/voice.py`), down come assignments, which the worker carries out in order.
What breaks a stream (a manager that dies, a gap) ends in a new stream to the next manager, where everything is said
again; whatever runs here goes on meanwhile. Who moves to another manager, or has a renewed certificate, begins the new
stream (`agent/stream.py`) before it ends the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import grpc.aio
import msgspec

from agent.certificate import Credentials
from agent.located import Located, Source
from agent.registry.auth import Credentials as RegistryCredentials
from agent.reporter import Reporter
from agent.roster import Roster
from agent.stream import Stream
from agent.voice import ImageRoom, Voice
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.codec import from_wire
from shoal.errors import ShoalError, Unavailable
from shoal.model.node import NodeDescription, Role
from shoal.model.trust import Trust
from shoal.rpc import translated
from shoal.tasks import first_of
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import dispatcher_pb2_grpc

log = logging.getLogger(__name__)

GOODBYE_S = 2.0
ASK_S = 5.0
WITHDRAW_S = 6.0
# Sessions in a row that failed.
_UNWELCOME = 3
# A manager that was not heard for this long is called no more; another one takes its nodes over soon after.
SILENCE_S = 4.5
# Where there is no other, it is rather slow than dead.
SILENCE_OF_THE_ONLY_S = 15.0
# How long connecting may take where thousands come back at once.
CONNECT_AT_MOST_S = 20.0
# Nodes move to a manager that serves again within this time, not all at once.
MOVE_S = 10.0
# After a manager did not let in a stream that is to follow one.
AGAIN_S = 5.0


class Told(Protocol):
    """Who carries assignments out (`agent.worker.Worker`)."""

    def begin_session(self) -> None: ...
    async def assign(self, message: wire.Assignments) -> None: ...


class Trusting(Protocol):
    """Who heeds whom a manager says to let in (`agent.trust.Doorkeeper`)."""

    async def learn(self, trust: Trust) -> None: ...


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
        self._voice = Voice(reporter, images, describe=describe, clock=clock)
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
        self._return_s = 0.0
        # Whom the stream is with, or is being opened to; and its channel, once it stands.
        self._manager = ""
        self._channel: grpc.aio.Channel | None = None
        self._summoned = asyncio.Event()
        self._leaving = asyncio.Event()
        self._goodbye = wire.Goodbye()
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
            self._manager = self._roster.managers[0]
            try:
                await self._hold()
            except ShoalError as error:
                self._note_lost(error)
                self._failures += 1
                if self._failures >= _UNWELCOME:
                    # Perhaps the managers take our certificate no more; another one is asked for beside this.
                    self._credentials.outdate(0.0)
            self._roster.lost(self._manager)
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

    async def goodbye(self, *, back_within_s: float = 0.0) -> None:
        """Tell the manager that this node leaves, or that its agent is back within a time, if one can be reached at
        all; no new stream is made. At most 2 s."""
        self._goodbye = wire.Goodbye(back_within_ns=int(back_within_s * 1e9))
        self._leaving.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._left.wait()

    async def locate(
        self, reference: str, manifest_digest: str, service_id: str = "", *, failed: bool = False
    ) -> Located:
        """The nodes that hold an image. With `service_id` this node may be sent to the registry, and counts as on the
        way as long as it asks again, until it has the image or `failed`. Raises Unavailable where no manager is
        connected."""
        if self._channel is None:
            raise Unavailable("no manager is connected to ask which nodes hold the image")
        stub = dispatcher_pb2_grpc.DispatcherServiceStub(self._channel)
        request = wire.LocateImageRequest(
            reference=reference, manifest_digest=manifest_digest, service_id=service_id, failed=failed
        )
        with translated():
            answer = await stub.LocateImage(request, timeout=ASK_S)
        said = answer.credentials
        return Located(
            tuple(Source(each.node_id, each.address, each.manifest_digest) for each in answer.sources),
            answer.bring,
            answer.coming,
            RegistryCredentials(said.username, said.password) if said.username else None,
            answer.doubt,
        )

    async def withdrawn(self, task_id: str) -> None:
        """Wait until no host leads anybody to a task of this one that is to end; some seconds at most, and not at all
        where no manager is connected."""
        if self._channel is None:
            return
        stub = dispatcher_pb2_grpc.DispatcherServiceStub(self._channel)
        try:
            with translated():
                await stub.AwaitWithdrawal(wire.AwaitWithdrawalRequest(task_id=task_id), timeout=WITHDRAW_S)
        except ShoalError as error:
            log.info("task %s stops, though a host may lead somebody to it: %s", task_id, error)

    async def _hold(self) -> None:
        """A stream, and those that it is left for, until the last ends. Raises ShoalError for how it ended."""
        stream = await self._open(self._manager)
        try:
            while (following := await self._use(stream)) is not None:
                stream, left = following, stream
                self._manager, self._channel = stream.manager, stream.channel
                await left.close()
        finally:
            self._channel = None
            await stream.close()

    async def _open(self, manager: str) -> Stream:
        """A stream that `manager` has accepted. Raises ShoalError."""
        for news in (self._credentials.renewed, self._moving, self._summoned):
            news.clear()
        stream = Stream(
            manager,
            self._credentials.current(),
            self._voice.hello(),
            silence_s=SILENCE_S if len(self._roster.managers) > 1 else SILENCE_OF_THE_ONLY_S,
            connect_s=min(self._return_s, CONNECT_AT_MOST_S),
        )
        await stream.open(self._clock, unless=self._summoned.wait())
        return stream

    async def _use(self, stream: Stream) -> Stream | None:
        """Until it ends, or another one stands that it is left for, which is returned: a node that moves is in a
        session all the time. A manager ends a stream when it hears that another one has begun, so that an end while
        the other one is being opened is none yet. Raises ShoalError for how it ended."""
        await self._greeted(stream)
        conversing = asyncio.create_task(self._converse(stream), name=f"stream with {stream.manager}")
        try:
            while not conversing.done():
                await first_of(asyncio.wait((conversing,)), self._outlive(stream))
                if not conversing.done() and (following := await self._follow(stream)) is not None:
                    return following
            conversing.result()
            return None
        finally:
            conversing.cancel()
            await asyncio.gather(conversing, return_exceptions=True)

    async def _outlive(self, stream: Stream) -> None:
        """Until there is reason for another stream: a manager to move to, at a moment of chance, or a new certificate.
        Not once this node leaves."""
        if stream.identity.certificate_pem == self._credentials.current().certificate_pem:
            await first_of(self._credentials.renewed.wait(), self._move())
        else:
            # Another stream was tried for already, and nobody let it in.
            await self._clock.sleep(AGAIN_S)
        if self._leaving.is_set():
            await asyncio.Event().wait()

    async def _follow(self, stream: Stream) -> Stream | None:
        """The one to leave `stream` for; None where no manager lets it in, and this node stays where it is."""
        manager = self._roster.beside(stream.manager) if self._moving.is_set() else self._roster.managers[0]
        try:
            return await self._open(manager)
        except ShoalError as error:
            log.info("staying with manager=%s, since %s does not let this node in: %s", stream.manager, manager, error)
            if manager != stream.manager:
                self._roster.lost(manager)
            return None

    async def _greeted(self, stream: Stream) -> None:
        """A stream stands, and is the one that counts."""
        log.info("connected manager=%s session=%s", stream.manager, stream.welcome.session_id)
        self._link = Link(manager=stream.manager, met=True)
        self._channel = stream.channel
        self._failures = 0
        self._worker.begin_session()
        self._reporter.resend_all()
        await self._learn(stream.welcome, stream.manager)

    async def _learn(self, welcome: wire.Welcome, manager: str) -> None:
        """What `manager` says of the cluster holds from now on."""
        before = set(self._roster.managers)
        self._return_s = welcome.return_within_ns / 1e9
        self._voice.beat_every(welcome.heartbeat_ns / 1e9)
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

    async def _converse(self, stream: Stream) -> None:
        """Until the stream ends."""
        await first_of(
            self._receive(stream),
            stream.write(),
            self._voice.speak(stream),
            self._say_goodbye(stream),
        )

    async def _receive(self, stream: Stream) -> None:
        async for response in stream.responses():
            match response.WhichOneof("response"):
                case "assignments":
                    await self._worker.assign(response.assignments)
                    if response.assignments.confirm:
                        await stream.say(carried_out=wire.CarriedOut(sequence=response.assignments.sequence))
                    # Only now: a host that cannot keep what it is told (its disk is full) must not call all the time.
                    self._backoff.reset()
                case "welcome":
                    await self._learn(response.welcome, stream.manager)
                case "trust":
                    await self._heed(from_wire(response.trust, Trust))

    async def _say_goodbye(self, stream: Stream) -> None:
        """Once this node leaves; the manager then ends the stream."""
        await self._leaving.wait()
        await stream.say(goodbye=self._goodbye)
        await stream.fall_silent()
        await asyncio.Event().wait()

    async def _move(self) -> None:
        """There is a manager to move to, and the moment of chance has come."""
        await self._moving.wait()
        await self._clock.sleep(self._chance() * MOVE_S)
        log.info("moving to a manager that serves again")

    async def _pause(self, wait_s: float) -> None:
        """Between two streams, but not when this node leaves."""
        await first_of(self._leaving.wait(), self._summoned.wait(), self._clock.sleep(wait_s))

    def _note_lost(self, error: ShoalError) -> None:
        """One line per episode, not per attempt."""
        if self._leaving.is_set():
            return
        if not self._link.error:
            log.warning("no session with manager=%s, trying on: %s", self._manager, error)
        self._link = Link(error=str(error), met=self._link.met)
