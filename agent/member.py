"""Member: what runs on a host while it is in a cluster: the session, the worker with its tasks, the mesh, the
renewal of the certificate, and the server that other nodes call.

`agent/membership.py` makes one when the host comes in and ends it when it leaves. A part that dies takes the
agent down; the agent's end leaves the tasks' containers running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import grpc.aio
import msgspec

from agent.certificate import Credentials, Renewal
from agent.database import Database
from agent.describe import describe
from agent.located import Located, Source
from agent.mesh import Mesh, NetworkRoom
from agent.obtain import ImageStore, Obtain
from agent.reporter import Reporter
from agent.session import Link, Session
from agent.taskrun import ContainerRoom, Host
from agent.trust import Doorkeeper
from agent.voice import ImageRoom
from agent.worker import Worker
from shoal.clock import Clock
from shoal.model.node import Role
from shoal.tasks import Group, first_of

log = logging.getLogger(__name__)

# Stopping a task takes its grace, 10 s unless it says otherwise; what takes longer is swept by the next agent.
END_S = 120.0
# An agent starts in two seconds, on a machine that is busy with other things in twenty.
ABSENCE_S = 60.0
STOP_SERVING_S = 2.0


class Images(ImageRoom, ImageStore[Any], Protocol):
    """`agent.image.images.Images`, as a member uses it."""


class Rooms(msgspec.Struct, frozen=True):
    """The agent's parts that a member works with. `serve` starts the server for other nodes; `dial` makes sources
    of blobs from nodes that hold an image."""

    containers: ContainerRoom
    images: Images
    networks: NetworkRoom
    serve: Callable[[Credentials, Doorkeeper], Any]
    dial: Callable[[Sequence[Source], Credentials], AbstractAsyncContextManager[Sequence[Any]]]
    clock: Clock


class Member:
    """`run` lasts until `leave` is through."""

    def __init__(
        self, rooms: Rooms, database: Database, credentials: Credentials, *, managers: Sequence[str], address: str
    ) -> None:
        self.credentials = credentials
        self.address = address
        self._rooms = rooms
        self._database = database
        self._mesh = Mesh(rooms.networks)
        self._doorkeeper = Doorkeeper(database, rooms.clock)
        self._reporter = Reporter(database.save_statuses, clock=rooms.clock)
        self._group = Group()
        self._obtain = Obtain(rooms.images, locate=self._locate, dial=self._dial, clock=rooms.clock)
        self._host = Host(
            node_id=credentials.current().node_id,
            described=describe(address),
            containers=rooms.containers,
            balance=self._mesh,
            image=self._obtain,
            withdrawn=lambda task_id: self._session.withdrawn(task_id),
            clock=rooms.clock,
        )
        self._worker = Worker(
            self._host, database=database, mesh=self._mesh, reporter=self._reporter, group=self._group
        )
        self._session = Session(
            credentials,
            managers,
            worker=self._worker,
            reporter=self._reporter,
            images=rooms.images,
            describe=lambda: describe(address, credentials.current().info),
            trust=self._doorkeeper,
            keep_managers=lambda known: remember_managers(database, known),
            clock=rooms.clock,
        )
        self._renewal = Renewal(credentials, lambda: self._session.managers, clock=rooms.clock)
        self._restored = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def link(self) -> Link:
        return self._session.link

    @property
    def managers(self) -> tuple[str, ...]:
        return self._session.managers

    @property
    def role(self) -> Role | None:
        """What the cluster wants this node to be; None while no manager has said it."""
        return self._session.role

    @property
    def over(self) -> bool:
        """Whether this node has left."""
        return self._over.is_set()

    async def told(self) -> None:
        """Return once a manager says again what the cluster wants, or the node has left."""
        self._session.told.clear()
        await first_of(self._session.told.wait(), self._over.wait())

    async def renew(self) -> None:
        """A new certificate, now. Raises what the last manager said."""
        await self._renewal.now()

    async def bring(self, reference: str) -> str:
        """As `Obtain.from_nodes`."""
        return await self._obtain.from_nodes(reference)

    def summon(self, managers: Sequence[str]) -> None:
        self._session.summon(managers)

    async def run(self) -> None:
        """Take up what was assigned, then stay in touch with a manager."""
        async with self._serving(), self._group as group:
            group.start("mesh", self._mesh.run())
            group.start("reporter", self._reporter.run())
            await self._worker.restore()
            self._restored.set()
            group.start("session", self._session.run())
            group.start("renewal", self._renewal.run())
            await self._over.wait()

    async def step_out(self) -> None:
        """Have the manager wait for the next agent of this host rather than call the host dead, whose tasks go on."""
        if self._restored.is_set():
            await self._session.goodbye(back_within_s=ABSENCE_S)

    async def leave(self, *, forget: Callable[[], None]) -> None:
        """Say goodbye, `forget` who we are, stop and remove every task, take the cluster's networks away. After
        `forget` there is no way back: whatever is then not finished, the next agent finishes."""
        await self._restored.wait()
        await self._session.goodbye()
        forget()
        await self._worker.end(timeout_s=END_S)
        await self._mesh.want((), ())
        await self._mesh.settled()
        self._over.set()

    async def _locate(
        self, reference: str, manifest_digest: str, service_id: str = "", *, failed: bool = False
    ) -> Located:
        own = self.credentials.current().node_id
        found = await self._session.locate(reference, manifest_digest, service_id, failed=failed)
        others = tuple(source for source in found.sources if source.node_id != own)
        return msgspec.structs.replace(found, sources=others)

    def _dial(self, sources: Sequence[Source]) -> AbstractAsyncContextManager[Sequence[Any]]:
        return self._rooms.dial(sources, self.credentials)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        await self._doorkeeper.restore()
        server: grpc.aio.Server = await self._rooms.serve(self.credentials, self._doorkeeper)
        try:
            yield
        finally:
            await server.stop(STOP_SERVING_S)


async def remember_managers(database: Database, managers: Sequence[str]) -> None:
    """Keep where managers listen, for the next start of the agent."""
    await database.set("managers", " ".join(managers))


async def remembered_managers(database: Database) -> list[str]:
    return (await database.setting("managers")).split()
