"""Daemon: the manager's process. One place where all is wired, and the end.

The agent of its host starts it and starts it again. It serves until SIGTERM or SIGINT; killed at any point, the
next one finds all that was acknowledged and goes on. What its arguments say is in `settings`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc
import grpc.aio

from manager import bootstrap
from manager.access import follow, open_store
from manager.api.control import ControlService
from manager.api.enlisting import Enlisting
from manager.api.locked import unlocked
from manager.api.peer import PeerService
from manager.api.permission import Permission
from manager.api.recorder import Recorder
from manager.api.relay import Relay
from manager.api.room import Room
from manager.api.staleness import Staleness
from manager.audit.denials import Denials
from manager.audit.ledger import Ledger
from manager.audit.retention import keep_short
from manager.backups import Backups
from manager.ca.authority import Seal
from manager.ca.lock import Lock, keep_following
from manager.ca.rpc import CertificateServicer, JoinServicer
from manager.ca.signer import Signer
from manager.control.loop import Loop
from manager.control.roster import managers_of, note_address
from manager.control.tenure import Tenure
from manager.deciders import DECIDERS, FINISH, prepare
from manager.dispatcher.holders import Holders
from manager.dispatcher.inventory import Inventory
from manager.dispatcher.rpc import DispatcherService
from manager.dispatcher.summoner import Summoner
from manager.doctor.examine import Doctor
from manager.founding import SEAL_FILE, IdentityFile, keep_identity, own_identity, roots_of, with_former
from manager.leader import Leader
from manager.ports import Ports, Services
from manager.quorum import Quorum
from manager.settings import Settings, parse
from manager.store.backup import take_over
from manager.store.base import Guard, Store
from manager.store.etcd.compaction import Compactor
from manager.store.etcd.store import EtcdStore
from manager.store.member import Members
from manager.store.mirror import Mirror
from shoal import process
from shoal.channels import Channels
from shoal.clock import Clock, SystemClock
from shoal.forward import Forward
from shoal.rpc import ENGINE_SERVICES
from shoal.tasks import Group, first_of

log = logging.getLogger(__name__)

CONTROL_SERVICE = "shoal.v1.ControlService"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the manager; exits 1 with one sentence when it cannot start."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    process.collect_rarely()
    process.run("shoal-manager", settings.log_level, settings.data_dir, serve(settings))


async def serve(settings: Settings) -> None:
    """All of the manager, until the process is asked to end."""
    ending = process.asked_to_end()
    clock = SystemClock()
    lock, seal = Lock(settings.data_dir / SEAL_FILE), None
    if lock.locked:
        seal = await unlocked(lock, settings.socket, (CONTROL_SERVICE, *ENGINE_SERVICES), ending)
        if seal is None:
            return
    if settings.store.managed:
        if settings.founder is not None:
            bootstrap.begin(settings, settings.founder, clock.now_ns())
        bootstrap.revive(settings, clock.now_ns(), seal)
    store = await open_store(settings.store, settings.data_dir, settings.identity_dir, clock)
    try:
        await manage(store, settings, lock, seal, clock=clock, ending=ending)
    finally:
        await store.close()


async def manage(
    store: Store, settings: Settings, lock: Lock, seal: Seal | None, *, clock: Clock, ending: asyncio.Event
) -> None:
    """One of the managers that share `store`, until `ending`. `seal` is there if it had to be unlocked."""
    async with AsyncExitStack() as stack:
        await take_over(store)
        mirror = Mirror()
        async with Group() as group:
            group.start("mirror", mirror.run(store, prepare=prepare))
            await mirror.reached(0)
            roots = await roots_of(store, mirror, settings.data_dir, settings.founder, clock, seal=seal)
            signer = Signer(mirror, roots.seal)
            first = own_identity(mirror, signer.current, settings.identity_dir, clock)
            own_id = first.node_id
            await note_address(store, mirror, own_id, settings.advertise, clock)
            identity = IdentityFile(settings.identity_dir, first)

            etcd = None
            if isinstance(store, EtcdStore) and settings.store.managed:
                etcd = Members(store.client, clock)
                group.start(
                    "access", follow(store, settings, mirror, own_id=own_id, identity=identity.current, clock=clock)
                )

            async def decide(fence: tuple[Guard, ...]) -> None:
                works = [Loop(store, mirror, DECIDERS, clock=clock, fence=fence, finish=FINISH).run()]
                if isinstance(store, EtcdStore) and etcd is not None:
                    works.append(Quorum(etcd, store, mirror, clock=clock, fence=fence).run())
                    works.append(Compactor(store, clock=clock).run())
                await first_of(*works)

            def managers() -> list[str]:
                return managers_of(mirror)

            tenure = Tenure(store, node_id=own_id, address=settings.advertise, clock=clock)
            leader = Leader(store, mirror, tenure, node_id=own_id, work=decide, clock=clock)
            channels = Channels(identity.current)
            stack.push_async_callback(channels.close)
            inventory = Inventory()
            holders = Holders(inventory, mirror, channels, own_id=own_id)
            dispatcher = DispatcherService(
                store=store,
                mirror=mirror,
                clock=clock,
                inventory=inventory,
                holders=holders,
                channels=channels,
                own_id=own_id,
                tenure=tenure,
                leads=lambda: leader.leads,
            )
            relay = Relay(mirror, own_id, channels)
            summoner = Summoner(
                mirror, identity=identity.current, managers=managers, leads=lambda: leader.leads, clock=clock
            )

            async def agent_of(node_id: str) -> grpc.aio.Channel:
                return await relay.choose("GetInfo", (("shoal-node", node_id),))

            doctor = Doctor(
                store,
                mirror,
                channel_to=agent_of,
                leader=lambda: leader.holder,
                file=settings.data_dir / "store.db",
                clock=clock,
            )
            ledger = Ledger(store, roots.seal, clock)
            denials = Denials(ledger, clock)
            recorder = Recorder(ledger, denials, mirror, own_id)
            room = Room(
                store,
                mirror,
                clock,
                roots.seal,
                signer.current,
                ledger,
                holders,
                own_id,
                lambda: leader.holder,
                lock,
                doctor,
            )
            control = ControlService(room)
            engine = Forward(ENGINE_SERVICES, relay.choose, whom=relay.whom, around=recorder.relayed)
            renewal = CertificateServicer(mirror=mirror, authority=signer.current, clock=clock)
            join = JoinServicer(
                mirror=mirror,
                authority=signer.current,
                seal=roots.seal,
                clock=clock,
                managers=managers,
                ledger=ledger,
                store_kind=store.kind,
            )

            gate = Permission(mirror, clock).gate()
            enlisting = Enlisting(store, mirror, clock, roots.seal, settings.store, etcd)
            peers = PeerService(inventory, dispatcher.withdrawals, enlisting)
            ports = Ports(
                settings.listen,
                settings.socket,
                Services(control, dispatcher, renewal, join, peers, engine),
                recorder=recorder,
                gate=gate,
                staleness=Staleness(store),
                shown=identity.current,
                trusting=lambda: with_former(identity.current(), mirror),
            )
            group.start("tenure", tenure.run())
            group.start("dispatcher", dispatcher.run())
            group.start("leader", leader.run())
            group.start("gate", gate.run())
            group.start("summoner", summoner.run())
            backups = Backups(store, mirror, roots.seal, own_id=own_id, leads=lambda: leader.leads, clock=clock)
            group.start("backups", backups.run())
            group.start("lock", keep_following(lock, mirror, roots.seal, clock))
            group.start("denials", denials.run())
            group.start("retention", keep_short(ledger, mirror, clock, leads=lambda: leader.leads))
            group.start("identity", keep_identity(mirror, signer.current, settings.identity_dir, clock))
            stack.push_async_callback(ports.close)
            await ports.open()
            log.info("serving listen=%s socket=%s", settings.listen, settings.socket)
            process.notify("READY=1")
            await ending.wait()
            log.info("ending")
            process.notify("STOPPING=1")
            ports.hide()
            # First of all: the agents find another manager, and another one leads, while calls here come to their end.
            await tenure.end()
            await ports.close()
