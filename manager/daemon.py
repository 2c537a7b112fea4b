"""Daemon: the manager's process. Arguments, one place where all is wired, and the end.

The agent of its host starts it and starts it again. It serves until SIGTERM or SIGINT; killed at any point, the
next one finds all that was acknowledged and goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import msgspec

from manager.api.cluster import check
from manager.api.control import ControlService
from manager.api.permission import Permission
from manager.api.relay import Relay
from manager.api.room import Room
from manager.ca.rpc import CertificateServicer, JoinServicer
from manager.control.loop import Loop
from manager.deciders import DECIDERS
from manager.dispatcher.inventory import Inventory
from manager.dispatcher.rpc import DispatcherService
from manager.founding import Founder, IdentityFile, keep_identity, own_identity, roots_of
from manager.leader import Leader
from manager.store.backup import check_whole
from manager.store.base import Guard
from manager.store.mirror import Mirror
from manager.store.sqlite import SqliteStore
from shoal import defaults, process
from shoal.access import Gate
from shoal.clock import SystemClock
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability
from shoal.rpc import ENGINE_SERVICES, Forward, listen_locally, new_server
from shoal.settings import JOIN_PORT_OFFSET, MANAGER_PORT, host_port
from shoal.tasks import Group
from shoal.tls import server_credentials
from shoal.v1 import ca_pb2_grpc, control_pb2_grpc, dispatcher_pb2_grpc

log = logging.getLogger(__name__)

STOP_SERVING_S = 2.0
# What somebody who is no member may send: a token or a certificate, and a signing request.
STRANGERS_BYTES = 64 << 10


class Settings(msgspec.Struct, frozen=True):
    """What the command line says. `founder` is there with --init."""

    data_dir: Path
    identity_dir: Path
    socket: Path
    listen: str
    advertise: str
    log_level: str
    founder: Founder | None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the manager; exits 1 with one sentence when it cannot start."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    process.run("shoal-manager", settings.log_level, settings.data_dir, serve(settings))


def parse(argv: Sequence[str]) -> Settings:
    """Exits 2 with the usage for what is no argument of ours."""
    parser = argparse.ArgumentParser(
        prog="shoal-manager", description="A manager of a cluster; its host's agent starts it."
    )
    path = process.absolute
    parser.add_argument("--data-dir", type=path, required=True, help="the store and the seal")
    parser.add_argument("--identity-dir", type=path, required=True, help="this node's certificate")
    parser.add_argument("--socket", type=path, required=True, help="where local root reaches it")
    parser.add_argument("--listen", default=f"0.0.0.0:{MANAGER_PORT}", help="ADDR:PORT (%(default)s)")
    parser.add_argument("--advertise", required=True, help="ADDR:PORT by which nodes reach it")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(%(default)s)"
    )
    parser.add_argument("--init", action="store_true", help="found a cluster where there is none")
    parser.add_argument("--node-name", default="", help="with --init: the hostname of this node")
    parser.add_argument(
        "--availability", choices=[each.name.lower() for each in Availability], default="active", help="with --init"
    )
    parser.add_argument("--spec-json", default="{}", help="with --init: how the cluster differs from the defaults")
    wanted = parser.parse_args(argv)
    founder = None
    if wanted.init:
        try:
            spec = _spec(wanted.spec_json)
        except InvalidArgument as error:
            # Its user typed none of these flags: a sentence without the usage.
            parser.exit(2, f"shoal-manager: {error}\n")
        founder = Founder(wanted.node_name, Availability[wanted.availability.upper()], spec)
    return Settings(
        wanted.data_dir,
        wanted.identity_dir,
        wanted.socket,
        wanted.listen,
        wanted.advertise,
        wanted.log_level,
        founder,
    )


async def serve(settings: Settings) -> None:
    """All of the manager, until it is asked to end."""
    ending = process.asked_to_end()
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(settings.data_dir / "store.db", clock=clock)
        stack.push_async_callback(store.close)
        await check_whole(store)
        mirror = Mirror()
        async with Group() as group:
            group.start("mirror", mirror.run(store))
            await mirror.reached(0)
            roots = await roots_of(store, mirror, settings.data_dir, settings.founder, clock)
            first = own_identity(mirror, roots.authority, settings.identity_dir, clock)
            identity = IdentityFile(settings.identity_dir, first)

            async def decide(fence: tuple[Guard, ...]) -> None:
                await Loop(store, mirror, DECIDERS, clock=clock, fence=fence).run()

            def managers() -> list[str]:
                return [settings.advertise]

            leader = Leader(store, node_id=first.node_id, work=decide, clock=clock)
            inventory = Inventory()
            dispatcher = DispatcherService(
                store=store,
                mirror=mirror,
                clock=clock,
                inventory=inventory,
                root_ca_pem=first.root_ca_pem,
                managers=managers,
            )
            relay = Relay(mirror, first.node_id, identity.current)
            stack.push_async_callback(relay.close)
            room = Room(store, mirror, clock, roots.seal, inventory, first.node_id, managers, lambda: leader.leads)
            control = ControlService(room)
            engine = Forward(ENGINE_SERVICES, relay.choose, whom=relay.whom)
            renewal = CertificateServicer(mirror=mirror, authority=roots.authority, clock=clock)
            join = JoinServicer(
                store=store,
                mirror=mirror,
                authority=roots.authority,
                seal=roots.seal,
                clock=clock,
                managers=managers,
            )

            gate = Gate(Permission(mirror).check)
            members = new_server(interceptors=(gate,))
            dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(dispatcher, members)
            ca_pb2_grpc.add_CertificateServiceServicer_to_server(renewal, members)
            control_pb2_grpc.add_ControlServiceServicer_to_server(control, members)
            members.add_generic_rpc_handlers((engine,))
            strangers = new_server(max_message_bytes=STRANGERS_BYTES)
            ca_pb2_grpc.add_JoinServiceServicer_to_server(join, strangers)
            local = new_server()
            control_pb2_grpc.add_ControlServiceServicer_to_server(control, local)
            local.add_generic_rpc_handlers((engine,))

            host, port = host_port(settings.listen, MANAGER_PORT)
            _listen(members, host, port, server_credentials(identity.current, require_client=True))
            _listen(
                strangers, host, port + JOIN_PORT_OFFSET, server_credentials(identity.current, require_client=False)
            )
            group.start("dispatcher", dispatcher.run())
            group.start("leader", leader.run())
            group.start("gate", gate.run(clock))
            group.start("identity", keep_identity(mirror, roots.authority, settings.identity_dir, clock))
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


def _spec(text: str) -> ClusterSpec:
    """The defaults with what `text` says over them, by name."""
    known = msgspec.structs.asdict(defaults.CLUSTER)
    try:
        given = msgspec.json.decode(text, type=dict[str, int | str])
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid --spec-json: {error}") from error
    if unknown := given.keys() - known.keys():
        raise InvalidArgument(f"invalid --spec-json: a cluster has no {', '.join(sorted(unknown))}")
    try:
        spec = msgspec.convert([*{**known, **given}.values()], ClusterSpec)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid --spec-json: {error}") from error
    check(spec)
    return spec
