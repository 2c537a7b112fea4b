"""Membership: how a host comes into a cluster, and leaves it. The state machine behind `swarm
init|join|leave|restore`.

What it takes to finish or undo a step is written down before the step: the settings of the manager process before
it is started, the identity before the session. A host without an identity is no member, and whatever a broken-off
init or leave left on it is removed when the agent starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import grpc.aio
import msgspec

from agent.address import advertised, check_way
from agent.certificate import Credentials
from agent.database import Database
from agent.join import join_first, joining_key, parse_token
from agent.manager import ManagerProcess
from agent.member import Member, Rooms, remember_managers, remembered_managers
from agent.office import Office, remove_tree
from agent.recovery import Recovery
from agent.settings import ManagerSettings, wanted_settings
from agent.standing import NOT_A_MEMBER, Founded, Said, Standing, State
from agent.sweep import sweep
from shoal.errors import Conflict, DeadlineExceeded, Locked, NotFound, ShoalError, Unavailable
from shoal.model.access import StoreAccess
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability, Role
from shoal.recovery import Secrets
from shoal.settings import AGENT_PORT, MANAGER_PORT, Paths, host_port
from shoal.tasks import Group
from shoal.tls import Identity

log = logging.getLogger(__name__)

_ALREADY = 'This node is already part of a swarm. Use "shoal swarm leave" to leave this swarm and join another one.'
_NO_SWARM = (
    'This node is not a swarm manager. Use "shoal swarm init" or "shoal swarm join" to connect this node to swarm '
    "and try again."
)
_WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this "
    "command on a manager node or promote the current node to a manager."
)
_LAST_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager "
    "erases all current state of the swarm."
)


class Membership:
    """`default_address` is the agent's --address. `run` must run for anything else to work."""

    def __init__(self, paths: Paths, database: Database, rooms: Rooms, *, default_address: str = "") -> None:
        self._paths = paths
        self._database = database
        self._rooms = rooms
        self._default_address = default_address
        self._group = Group()
        self._member: Member | None = None
        self._office = Office(paths, database, self._group, clock=rooms.clock)
        self._recovery = Recovery(paths, self._office)
        self._ready = asyncio.Event()
        self._turn = asyncio.Lock()
        self._leaving: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Take up the membership that the disk tells of; for as long as the agent lives."""
        async with self._group:
            await self._resume()
            self._ready.set()
            await asyncio.Event().wait()

    def standing(self) -> Standing:
        """What this host is just now; before its agent has read the disk, that is no member."""
        member = self._member
        if member is None:
            return Standing()
        identity = member.credentials.current()
        link = member.link
        expired = identity.not_after.timestamp() * 1e9 <= self._rooms.clock.now_ns()
        if expired:
            state, error = State.ERROR, f"this node's certificate expired at {identity.not_after.isoformat()}"
        else:
            state, error = State.ACTIVE if link.met else State.PENDING, link.error
        return Standing(
            state=state,
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            role=identity.role,
            error=error,
            managers=member.managers,
            address=member.address,
        )

    def heed(self, managers: Sequence[str]) -> None:
        """A manager called and said where they are."""
        if self._member is not None:
            self._member.summon(managers)

    async def bring(self, reference: str) -> str:
        """An image that another node has: its name here. Raises NotFound where none has it, and none can."""
        await self._ready.wait()
        if self._member is None:
            raise NotFound(f"no other node has {reference}: {_NO_SWARM}")
        return await self._member.bring(reference)

    async def manager_channel(self) -> grpc.aio.Channel:
        """To the manager on this host, or while it is down to another one. Raises Unavailable, in docker's words, on a
        host that has none."""
        await self._ready.wait()
        if self._office.process is not None:
            return await self._office.channel()
        if self._member is None:
            raise Unavailable(_NO_SWARM)
        raise Unavailable(_WORKER, hint=f"managers of this swarm: {', '.join(self._member.managers)}")

    async def renew(self) -> int:
        """Exchange this node's certificate for a new one; when that ends, in nanoseconds since the epoch."""
        await self._ready.wait()
        if self._member is None:
            raise Conflict(NOT_A_MEMBER)
        await self._member.renew()
        return int(self._member.credentials.current().not_after.timestamp()) * 10**9

    async def unlock(self, key: str) -> None:
        """Have the manager of this host serve again; returns once it does."""
        await self._ready.wait()
        manager = self._office.process
        if manager is None:
            raise Unavailable(_NO_SWARM) if self._member is None else Conflict("swarm is not locked")
        await manager.unlock(key)
        log.info("unlocked")

    async def manager_says(self) -> Said:
        """Empty where no manager belongs to this host, or it does not answer. Raises Locked when it is."""
        await self._ready.wait()
        return Said() if self._office.process is None else await self._office.process.says()

    async def init(
        self, *, advertise: str, listen: str, availability: Availability, spec: ClusterSpec, store: StoreAccess
    ) -> Founded:
        """Make a cluster with this host as its manager and first node. A failure leaves the host as it was."""
        await self._ready.wait()
        async with self._turn:
            self._check_outside()
            settings = wanted_settings(
                advertise, listen, default=self._default_address, availability=availability, spec=spec, store=store
            )
            founded = await self._found(settings)
            log.info("swarm initialised node=%s address=%s", founded.node_id, settings.advertise)
            return founded

    async def force_new(self, *, advertise: str, listen: str) -> Founded:
        """Make this host, a manager, the only one of its cluster, from its own data; where nothing is said, it is
        reached as before. The other managers become workers when they hear of it."""
        await self._ready.wait()
        async with self._turn:
            before, node_id = await self._managing()
            address, _ = host_port(before.advertise, MANAGER_PORT)
            wanted = wanted_settings(advertise or before.advertise, listen or before.listen, default=address)
            settings = msgspec.structs.replace(
                before, listen=wanted.listen, advertise=wanted.advertise, founds=False, initial_cluster=""
            )
            await self._recovery.become_alone(node_id, settings=settings)
            await remember_managers(self._database, [settings.advertise])
            self.heed([settings.advertise])
            if (manager := await self._served()) is None:
                return Founded(node_id, "", settings.advertise, locked=True)
            token, unlock_key = await manager.worker_token(), await manager.unlock_key()
            log.info("the only manager of its cluster node=%s address=%s", node_id, settings.advertise)
            return Founded(node_id, token, settings.advertise, unlock_key)

    async def migrate(self, store: StoreAccess) -> bool:
        """Move the cluster's state, which this host alone manages, into another store. Until the note of it is on the
        disk the old one is the truth, whatever breaks off; from then on the new one is. Returns whether the manager
        serves: with autolock it waits for its unlock key."""
        await self._ready.wait()
        async with self._turn:
            before, _ = await self._managing()
            if store == before.store or (store.managed and before.store.managed):
                raise Conflict("the cluster's state is in that store already")
            await self._check_alone()
            if store.managed and self._member is not None:
                # Other members reach etcd here by this host's address, which the first certificate does not say.
                await self._member.renew()
            after = msgspec.structs.replace(before, store=store, founds=False, initial_cluster="")
            await self._recovery.migrate(before.store, settings=after)
            log.info("migrated shared=%s", store.shared)
            return await self._served() is not None

    async def _check_alone(self) -> None:
        """Raises Conflict while there are other managers, before anything stops. Where the manager does not answer,
        who copies the state finds that out."""
        assert self._office.process is not None
        with contextlib.suppress(Unavailable, DeadlineExceeded):
            if (count := await self._office.process.managers()) > 1:
                raise Conflict(f"{count} managers use the store", hint="demote the others, and promote them after")

    async def _managing(self) -> tuple[ManagerSettings, str]:
        """How the manager of this host is started, and which node it is on. Raises Unavailable where there is none."""
        if self._office.process is None or self._member is None:
            raise Unavailable(_NO_SWARM if self._member is None else _WORKER)
        return await self._office.settings(), self._member.credentials.current().node_id

    async def _served(self) -> ManagerProcess | None:
        """The manager of this host, once it serves again; None where it waits for its unlock key."""
        manager = self._office.process
        assert manager is not None
        try:
            await manager.ready()
        except Locked:
            return None
        return manager

    async def restore(
        self, chunks: AsyncIterator[bytes], secrets: Secrets, *, advertise: str, listen: str, availability: Availability
    ) -> Founded:
        """Make this host the only manager of the cluster in a backup. A failure leaves the host as it was."""
        await self._ready.wait()
        async with self._turn:
            self._check_outside()
            wanted = wanted_settings(
                advertise, listen, default=self._default_address, availability=availability, store=secrets.store
            )
            settings = msgspec.structs.replace(wanted, founds=False)
            founded = await self._found(settings, lambda: self._recovery.restore(chunks, secrets, settings=settings))
            log.info("swarm restored node=%s address=%s", founded.node_id, settings.advertise)
            return founded

    async def _found(self, settings: ManagerSettings, prepare: Callable[[], Awaitable[None]] | None = None) -> Founded:
        """Become a manager by `settings`, once `prepare` has made its data."""
        address, port = host_port(settings.advertise, MANAGER_PORT)
        await check_way(address, port, listen=host_port(settings.listen, MANAGER_PORT))
        await self._remember([settings.advertise], address)
        await self._office.note(settings)
        try:
            if prepare is not None:
                await prepare()
            manager = await self._office.open(settings)
            await manager.ready()
            identity = Identity.load(self._paths.identity)
            if identity is None:
                raise ShoalError("the manager is up but gave this host no identity")
            token = await manager.worker_token()
            unlock_key = await manager.unlock_key()
        except BaseException:
            await asyncio.shield(self._dissolve())
            raise
        self._enter(identity, [settings.advertise], address)
        return Founded(identity.node_id, token, settings.advertise, unlock_key)

    async def join(
        self, *, token: str, managers: Sequence[str], advertise: str, availability: Availability
    ) -> Standing:
        """Become a node of the cluster that the token is for, by the first manager that answers."""
        await self._ready.wait()
        async with self._turn:
            self._check_outside()
            parsed = parse_token(token)
            address = advertised(advertise or self._default_address) if advertise or self._default_address else ""
            if address:
                await check_way(address, AGENT_PORT, listen=("0.0.0.0", AGENT_PORT))
            key = joining_key(self._paths.joining_key)
            joined = await join_first(parsed, managers, key_pem=key, availability=availability, address=address)
            # The identity comes last: with it, the host is a member.
            await self._remember(joined.managers, joined.address)
            joined.identity.save(self._paths.identity)
            self._paths.joining_key.unlink(missing_ok=True)
            self._enter(joined.identity, joined.managers, joined.address)
        if joined.identity.role is Role.MANAGER:
            await self._office.opened()
        return self.standing()

    async def leave(self, *, force: bool) -> None:
        """Stop and remove the cluster's tasks and networks here, and forget the cluster. Carried to its end even if
        the caller goes away."""
        await self._ready.wait()
        self._leaving = asyncio.ensure_future(self._leave(force))
        await asyncio.shield(self._leaving)

    async def step_out(self) -> None:
        """This agent ends and is started again: the cluster waits for it."""
        if self._member is not None:
            await self._member.step_out()

    async def _leave(self, force: bool) -> None:
        await self._step_down(force)
        async with self._turn:
            if self._member is None:
                raise Conflict(NOT_A_MEMBER)
            await self._member.leave(forget=self._forget_identity)
            self._member = None
            await self._dissolve()
            await sweep(self._rooms)
            log.info("left the swarm")

    async def _step_down(self, force: bool) -> None:
        """Where this host is a manager, have it be none first; with `force`, as far as that goes."""
        if self._office.process is None or self._member is None:
            return
        try:
            if not any(each != self._office.process.address for each in self._member.managers):
                raise Conflict(_LAST_MANAGER, hint="use --force to ignore this")
            await self._office.give_up(self._member)
        except ShoalError as error:
            if not force:
                raise
            log.warning("leaving without being let go as a manager: %s", error)

    async def _resume(self) -> None:
        """What the disk tells: a member goes on; anything half done is undone."""
        identity = Identity.load(self._paths.identity)
        await self._office.resume(member=identity is not None)
        if identity is None:
            await self._dissolve()
            await sweep(self._rooms)
            return
        managers = await remembered_managers(self._database)
        self._enter(identity, managers, await self._database.setting("address"))

    async def _remember(self, managers: Sequence[str], address: str) -> None:
        await self._database.set("address", address)
        await remember_managers(self._database, managers)

    def _enter(self, identity: Identity, managers: Sequence[str], address: str) -> None:
        self._member = Member(
            self._rooms,
            self._database,
            Credentials(self._paths.identity, identity),
            managers=managers,
            address=address,
        )
        self._group.spawn("member", self._member.run())
        self._group.spawn("role", self._office.follow(self._member, self._turn))

    async def _dissolve(self) -> None:
        """Back to a host that never was a member. Idempotent."""
        self._forget_identity()
        await self._office.close()
        await self._database.clear()

    def _check_outside(self) -> None:
        if self._member is not None:
            raise Conflict(_ALREADY)

    def _forget_identity(self) -> None:
        remove_tree(self._paths.identity)
