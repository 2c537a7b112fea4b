"""Office: a host's part as a manager: its manager process, with a member of etcd where managers run that themselves,
and how it comes to have them and ceases to.

`agent/membership.py` founds clusters and leaves them; once the host is a member, what it is to be is the cluster's to
say, and this follows it. What a step needs to be finished is written down before it: whatever an agent that died left
half done, the next one goes on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec

from agent.database import Database
from agent.etcd import EtcdProcess
from agent.manager import ManagerProcess
from agent.member import Member
from agent.promotion import Step, enlist, next_step
from agent.reach import Reach
from agent.settings import ManagerSettings, member_settings
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import ShoalError, Unavailable
from shoal.files import write_atomic
from shoal.model.access import StoreAccess
from shoal.settings import MANAGER_PORT, Paths
from shoal.tasks import Group, first_of
from shoal.tls import Identity

log = logging.getLogger(__name__)

# Becoming a manager, or ceasing to be one, with an etcd that takes in or lets go a member.
CHANGE_S = 60.0
_LOOK_S = 0.1
_LOOK_AT_IDENTITY_S = 2.0
# Settings of the database: the manager process to have, and the one to get rid of.
_MANAGER = "manager"
_RESIGNING = "resigning"


class Office:
    """`process` is there while this host is a manager."""

    def __init__(self, paths: Paths, database: Database, group: Group, *, clock: Clock) -> None:
        self._paths = paths
        self._database = database
        self._group = group
        self._clock = clock
        self._reach = Reach(self._identity)
        self._member: Member | None = None
        self.process: ManagerProcess | None = None
        self._etcd: EtcdProcess | None = None
        # Why there is no manager process for now.
        self._pause = ""
        # What is in the way of what the cluster wants this host to be.
        self.obstacle = ""

    async def channel(self) -> grpc.aio.Channel:
        """To the manager of this host, or to another one while that is down. Raises Unavailable during a pause."""
        assert self.process is not None
        if self._pause:
            raise Unavailable(self._pause, hint="try again in a moment")
        return await self._reach.channel(self.process, self._member.managers if self._member else ())

    async def open(self, settings: ManagerSettings) -> ManagerProcess:
        """Have a manager process by `settings` from now on, also after the next start of the agent."""
        await self.note(settings)
        return self._supervise(settings)

    async def note(self, settings: ManagerSettings) -> None:
        """Write down what is about to be made, so that it can be taken away if it is not finished."""
        await self._database.set(_MANAGER, msgspec.json.encode(settings).decode())

    async def settings(self) -> ManagerSettings:
        """How the manager of this host is started."""
        return _decoded(await self._database.setting(_MANAGER))

    @contextlib.asynccontextmanager
    async def paused(self, why: str) -> AsyncIterator[None]:
        """No manager process while the block runs; who asks for it is told `why`. Afterwards there is one again, by the
        settings that were noted last."""
        assert self.process is not None
        self._pause = why
        try:
            await self.process.stop()
            yield
        finally:
            self._pause = ""
            settings = await self.settings()
            if not settings.store.managed:
                await self.forget_etcd()
            self._supervise(settings)

    async def start_etcd(self, settings: ManagerSettings, *, alone: bool = False) -> StoreAccess:
        """Run this host's member of etcd by `settings`, during a pause; returns how it is reached once it serves. What
        it knows becomes a cluster of its own if it is to be `alone`."""
        await self.stop_etcd()
        member = msgspec.structs.replace(member_settings(settings), alone=alone)
        etcd = self._etcd = EtcdProcess(member, self._paths, clock=self._clock)
        self._group.spawn("etcd process", self._run_etcd(etcd, self._paths.identity))
        await etcd.ready(self._identity())
        return msgspec.structs.replace(settings.store, endpoints=(member.endpoint,))

    async def beside_etcd(
        self, settings: ManagerSettings, work: Callable[[], Coroutine[Any, Any, None]], *, folder: Path
    ) -> None:
        """Do `work` while this host's member of etcd runs by `settings`, from when there is an identity in `folder`.
        Raises what `work` raises, or ShoalError with what etcd said when it dies."""
        etcd = self._etcd = EtcdProcess(member_settings(settings), self._paths, clock=self._clock)
        self._group.spawn("etcd process", self._run_etcd(etcd, folder))
        try:
            await first_of(work(), etcd.failed())
        finally:
            await self.stop_etcd()

    async def stop_etcd(self) -> None:
        """Its data stay."""
        if self._etcd is not None:
            etcd, self._etcd = self._etcd, None
            await etcd.stop()

    async def forget_etcd(self) -> None:
        """No member of etcd, and no data of one, on this host."""
        if self._etcd is not None:
            etcd, self._etcd = self._etcd, None
            await etcd.forget()

    async def resume(self, *, member: bool) -> None:
        """What the disk tells: a member's manager goes on; one that was given up, or not finished, is stopped."""
        await self._finish_resigning()
        if not (kept := await self._database.setting(_MANAGER)):
            return
        if member:
            await self._forget_copy(_decoded(kept))
            self._supervise(_decoded(kept))
        else:
            log.warning("an earlier init was broken off; undoing it")
            self._prepare(_decoded(kept))

    async def close(self) -> None:
        """No manager, and nothing of one, on this host. Idempotent."""
        if self.process is not None:
            await self.process.stop()
            self.process = None
        await self.forget_etcd()
        for folder in (self._paths.etcd, self._paths.manager_data):
            await asyncio.to_thread(remove_tree, folder)
        await self._database.set(_MANAGER, "")

    async def opened(self) -> None:
        """Return once the manager of this host serves. Raises Unavailable when it does not in time."""
        deadline = self._clock.monotonic() + CHANGE_S
        while self.process is None:
            if self._clock.monotonic() > deadline:
                why = self.obstacle or "nobody has told it how"
                raise Unavailable(
                    f"this node joined the swarm, but is no manager yet: {why}", hint="its agent keeps trying"
                )
            await self._clock.sleep(_LOOK_S)
        await self.process.ready()

    async def give_up(self, member: Member) -> None:
        """Become a worker, so that the other managers go on without this one; returns once that is done.

        Raises Conflict when this one is needed, Unavailable when it takes too long.
        """
        assert self.process is not None
        await self.process.demote(member.credentials.current().node_id)
        deadline = self._clock.monotonic() + CHANGE_S
        while self.process is not None:
            if self._clock.monotonic() > deadline:
                why = self.obstacle or "it was not told to"
                raise Unavailable(f"this node does not cease to be a manager: {why}")
            await self._clock.sleep(_LOOK_S)

    async def follow(self, member: Member, turn: asyncio.Lock) -> None:
        """Be what the cluster wants `member` to be until it has left; each step under `turn`."""
        self._member = member
        backoff = Backoff(0.2, 5)
        while not member.over:
            try:
                async with turn:
                    identity = member.credentials.current()
                    step = next_step(member.role, identity, manages=self.process is not None, address=member.address)
                    if step is not None and not member.over:
                        await self._take(step, member)
            except (ShoalError, OSError) as error:
                if not self.obstacle:
                    log.warning("this host cannot become what the cluster wants, trying on: %s", error)
                self.obstacle = str(error)
                await self._clock.sleep(backoff.next())
                continue
            self.obstacle = ""
            backoff.reset()
            if step is None:
                await member.told()

    async def _take(self, step: Step, member: Member) -> None:
        log.info("wanted=%s step=%s", member.role.name if member.role else "", step.value)
        match step:
            case Step.RENEW:
                await member.renew()
            case Step.ENLIST:
                await self._enlist(member)
            case Step.RESIGN:
                await self._resign()

    async def _enlist(self, member: Member) -> None:
        address = f"{member.address}:{MANAGER_PORT}"
        commission = await enlist(member.credentials.current(), member.managers, address)
        settings = ManagerSettings(
            listen=f"0.0.0.0:{MANAGER_PORT}",
            advertise=address,
            node_name=socket.gethostname(),
            founds=False,
            store=commission.store,
            initial_cluster=commission.initial_cluster,
        )
        await asyncio.to_thread(write_atomic, self._paths.seal, commission.seal_key)
        await self.open(settings)

    async def _resign(self) -> None:
        await self._database.set(_RESIGNING, await self._database.setting(_MANAGER))
        await self._database.set(_MANAGER, "")
        await self._finish_resigning()

    async def _finish_resigning(self) -> None:
        if not (kept := await self._database.setting(_RESIGNING)):
            return
        if self.process is None:
            self._prepare(_decoded(kept))
        await self.close()
        await self._database.set(_RESIGNING, "")

    def _supervise(self, settings: ManagerSettings) -> ManagerProcess:
        before = self._etcd
        process = self._prepare(settings)
        self._group.spawn("manager process", process.run())
        if self._etcd is not None and self._etcd is not before:
            self._group.spawn("etcd process", self._run_etcd(self._etcd, self._paths.identity))
        return process

    def _prepare(self, settings: ManagerSettings) -> ManagerProcess:
        """The processes by `settings`, that an earlier agent may have started."""
        self.process = ManagerProcess(settings, self._paths, clock=self._clock)
        if settings.store.managed and self._etcd is None:
            self._etcd = EtcdProcess(member_settings(settings), self._paths, clock=self._clock)
        return self.process

    async def _forget_copy(self, settings: ManagerSettings) -> None:
        """Of a migration that broke off: the store that was to be is not."""
        if not settings.store.managed and self._paths.etcd.exists():
            await EtcdProcess(member_settings(settings), self._paths, clock=self._clock).forget()

    async def _run_etcd(self, etcd: EtcdProcess, folder: Path) -> None:
        """Once there is an identity in `folder`, which may be yet to be made; it shows later ones at once."""
        shown = None
        running = None
        while self._etcd is etcd:
            identity = await asyncio.to_thread(Identity.load, folder)
            if identity is not None and identity != shown:
                await etcd.show(identity)
                shown = identity
            if shown is not None and running is None:
                running = self._group.spawn("etcd", etcd.run())
            await self._clock.sleep(_LOOK_S if running is None else _LOOK_AT_IDENTITY_S)

    def _identity(self) -> Identity:
        assert self._member is not None
        return self._member.credentials.current()


def remove_tree(path: Path) -> None:
    """Gone, or it was not there."""
    if path.exists():
        shutil.rmtree(path)


def _decoded(kept: str) -> ManagerSettings:
    return msgspec.json.decode(kept, type=ManagerSettings)
