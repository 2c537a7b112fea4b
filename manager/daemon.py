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
from manager.quorum import Quorum
from manager.settings import Settings, parse
from manager.store.backup import take_over
from manager.store.base import Guard, Store
from manager.store.etcd.compaction import Compactor
from manager.store.etcd.store import EtcdStore
from manager.store.member import Members
from manager.store.mirror import Mirror
from shoal import process
from shoal.bound import Bounds
from shoal.channels import Channels
from shoal.clock import Clock, SystemClock
from shoal.errors import Unavailable
from shoal.rpc import ENGINE_SERVICES, Forward, listen_locally, new_server
from shoal.settings import JOIN_PORT_OFFSET, MANAGER_PORT, host_port
from shoal.tasks import Group, first_of
from shoal.tls import server_credentials
from shoal.v1 import ca_pb2_grpc, control_pb2_grpc, dispatcher_pb2_grpc, manager_pb2_grpc

log = logging.getLogger(__name__)

STOP_SERVING_S = 2.0
CONTROL_SERVICE = "shoal.v1.ControlService"
# With what is left to an agent whose stream broke (4 s of 6, by default), a dead host is DOWN within 10 s.
PING_EVERY_S = 2.2
PING_TIMEOUT_S = 3.0
# What somebody who is no member may send: a token or a certificate, and a signing request; and hold meanwhile.
STRANGERS = Bounds(message_bytes=64 << 10, streams=4, calls=256, idle_s=30.0)
# A session carries at most 1,000 statuses or 10,000 images at once. A connection is one agent's or one client's.
MEMBERS = Bounds(
    ahead_bytes=1 << 20,
    service_bytes={
        "shoal.v1.DispatcherService": 8 << 20,
        "shoal.v1.CertificateService": 64 << 10,
        "shoal.v1.ControlService": 4 << 20,
        "shoal.v1.ManagerService": 64 << 10,
    },
    streams=128,
)


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
            group.start("mirror", mirror.run(store))
            await mirror.reached(0)
            prepare(mirror)
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
            staleness = Staleness(store)
            interceptors = (recorder, gate, staleness)
            members = new_server(
                interceptors=interceptors,
                bounds=MEMBERS,
                ping_every_s=PING_EVERY_S,
                ping_timeout_s=PING_TIMEOUT_S,
            )
            dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(dispatcher, members)
            ca_pb2_grpc.add_CertificateServiceServicer_to_server(renewal, members)
            control_pb2_grpc.add_ControlServiceServicer_to_server(control, members)
            enlisting = Enlisting(store, mirror, clock, roots.seal, settings.store, etcd)
            manager_pb2_grpc.add_ManagerServiceServicer_to_server(PeerService(inventory, enlisting), members)
            members.add_generic_rpc_handlers((engine,))
            strangers = new_server(interceptors=(recorder,), bounds=STRANGERS)
            ca_pb2_grpc.add_JoinServiceServicer_to_server(join, strangers)
            local = new_server(interceptors=interceptors)
            control_pb2_grpc.add_ControlServiceServicer_to_server(control, local)
            local.add_generic_rpc_handlers((engine,))

            host, port = host_port(settings.listen, MANAGER_PORT)
            _listen(
                members,
                host,
                port,
                server_credentials(lambda: with_former(identity.current(), mirror), require_client=True),
            )
            _listen(
                strangers, host, port + JOIN_PORT_OFFSET, server_credentials(identity.current, require_client=False)
            )
            group.start("tenure", tenure.run())
            group.start("dispatcher", dispatcher.run())
            group.start("leader", leader.run())
            group.start("gate", gate.run())
            group.start("summoner", summoner.run())
            backups = Backups(store, mirror, own_id=own_id, leads=lambda: leader.leads, clock=clock)
            group.start("backups", backups.run())
            group.start("lock", keep_following(lock, mirror, roots.seal, clock))
            group.start("denials", denials.run())
            group.start("retention", keep_short(ledger, mirror, clock, leads=lambda: leader.leads))
            group.start("identity", keep_identity(mirror, signer.current, settings.identity_dir, clock))
            settings.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
            settings.socket.unlink(missing_ok=True)
            listen_locally(local, settings.socket)
            # The socket last: whoever finds it answering finds the rest so too.
            for server in (members, strangers, local):
                await server.start()
                stack.push_async_callback(server.stop, STOP_SERVING_S)
            log.info("serving listen=%s socket=%s", settings.listen, settings.socket)
            process.notify("READY=1")
            await ending.wait()
            log.info("ending")
            process.notify("STOPPING=1")
            settings.socket.unlink(missing_ok=True)
            # First of all: the agents find another manager, and another one leads, while calls here come to their end.
            await tenure.end()
            for server in (local, strangers, members):
                await server.stop(STOP_SERVING_S)


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials) -> None:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: the address is not this host's, or the port is in use",
            hint="choose another with --listen-addr",
        ) from error
