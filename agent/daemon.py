"""Daemon: the agent's process. Arguments, one place where all is wired, and the end.

In the foreground, until SIGTERM or SIGINT; then it stops serving, and the containers, the keeper and the manager
process go on. SIGUSR1 says that it is started again at once, which its manager hears of. A part that dies takes the
process down: whoever started it starts it again, and it adopts what runs.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
import msgspec

from agent.annals import Annals
from agent.api.blob import BlobService
from agent.api.build import BuildService
from agent.api.container import ContainerService
from agent.api.image import ImageService
from agent.api.network import NetworkService
from agent.api.server import Elsewhere, Service, serve_local, serve_peers
from agent.api.summon import SummonService
from agent.api.swarm import SwarmService
from agent.api.system import System, SystemService
from agent.api.usage import Usage
from agent.api.volume import VolumeService
from agent.build.builder import Builder
from agent.certificate import Credentials
from agent.chronicle import REMEMBERED, Chronicle
from agent.container.containers import Containers
from agent.container.runtimes import OWN, Runtimes, of_host
from agent.database import Database
from agent.describe import boot_of_host
from agent.image.images import Images
from agent.image.peer import Peer
from agent.located import Source
from agent.member import Rooms
from agent.membership import Membership
from agent.network.networks import Networks
from agent.registry import rules
from agent.registry.rules import CERTIFICATES, Rules
from agent.runtime.runtime import Runtime
from agent.trust import Doorkeeper
from agent.volume.volumes import Volumes
from shoal import process
from shoal.clock import SystemClock
from shoal.errors import InvalidArgument
from shoal.forward import Forward
from shoal.rpc import ENGINE_SERVICES, Metadata
from shoal.settings import AGENT_PORT, DATA_DIR, RUN_DIR, Paths
from shoal.tasks import Group
from shoal.v1 import blob_pb2_grpc, build_pb2_grpc, engine_pb2_grpc, swarm_pb2_grpc

log = logging.getLogger(__name__)

STOP_SERVING_S = 2.0
CONTROL_SERVICE = "shoal.v1.ControlService"


class Settings(msgspec.Struct, frozen=True):
    """What the command line says."""

    paths: Paths
    cgroup_parent: str
    log_level: str
    address: str
    runtimes: Runtimes
    registries: Rules


def main(argv: Sequence[str] | None = None) -> None:
    """Run the agent; exits 1 with one sentence when it cannot start."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    process.collect_rarely()
    process.run("shoal-agent", settings.log_level, settings.paths.run, serve(settings))


def parse(argv: Sequence[str]) -> Settings:
    """Exits 2 with the usage for what is no argument of ours."""
    parser = argparse.ArgumentParser(prog="shoal-agent", description="The agent of one host; runs in the foreground.")
    parser.add_argument(
        "--data-dir", type=process.absolute, default=DATA_DIR, help="what survives a reboot (%(default)s)"
    )
    parser.add_argument(
        "--run-dir", type=process.absolute, default=RUN_DIR, help="sockets and state of this boot (%(default)s)"
    )
    parser.add_argument("--cgroup-parent", default="shoal", help="cgroup that containers go under (%(default)s)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(%(default)s)"
    )
    parser.add_argument(
        "--address",
        default="",
        help="address or interface by which other hosts reach this one, unless init or join say",
    )
    parser.add_argument("--runtime", default=OWN, help="what runs containers that name no runtime (%(default)s)")
    parser.add_argument(
        "--add-runtime", action="append", default=[], metavar="NAME=PATH", help="another OCI runtime for containers"
    )
    parser.add_argument(
        "--insecure-registry",
        action="append",
        default=[],
        metavar="HOST[:PORT]|NETWORK",
        help="a registry that needs no TLS, or whose certificate is not checked",
    )
    parser.add_argument(
        "--registry-mirror",
        action="append",
        default=[],
        metavar="[REGISTRY=]URL",
        help="what is asked before a registry (docker.io where none is named)",
    )
    parser.add_argument(
        "--registry-certs",
        type=process.absolute,
        default=CERTIFICATES,
        help="a folder per registry with its CA and our client certificate (%(default)s)",
    )
    wanted = parser.parse_args(argv)
    try:
        runtimes = of_host(wanted.runtime, wanted.add_runtime)
        registries = rules.read(wanted.insecure_registry, wanted.registry_mirror, wanted.registry_certs)
    except InvalidArgument as error:
        parser.error(error.message)
    paths = Paths(wanted.data_dir, wanted.run_dir)
    return Settings(paths, wanted.cgroup_parent, wanted.log_level, wanted.address, runtimes, registries)


async def serve(settings: Settings) -> None:
    """All of the agent, until it is asked to end."""
    ending = process.asked_to_end()
    paths = settings.paths
    paths.data.mkdir(parents=True, exist_ok=True, mode=0o711)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        chronicle = Chronicle(clock, Annals(paths.run / "events", REMEMBERED))
        runtime = await Runtime.open(run_dir=paths.run, cgroup_parent=settings.cgroup_parent)
        stack.push_async_callback(runtime.close)
        images = await Images.open(paths.images, rules=settings.registries, tell=chronicle.tell)
        stack.callback(images.close)
        networks = await Networks.open(
            data_dir=paths.data, run_dir=paths.run, chance=random.random, tell=chronicle.tell
        )
        stack.push_async_callback(networks.close)
        volumes = await Volumes.open(paths.volumes, tell=chronicle.tell)
        containers = await Containers.open(
            paths=paths,
            runtime=runtime,
            images=images,
            networks=networks,
            volumes=volumes,
            clock=clock,
            tell=chronicle.tell,
            runtimes=settings.runtimes,
        )
        stack.push_async_callback(containers.close)

        async def bring(reference: str) -> str:
            return await membership.bring(reference)

        builder = await Builder.open(paths, images=images, runtime=runtime, networks=networks, clock=clock, bring=bring)
        database = await Database.open(paths.database, boot=boot_of_host())
        stack.push_async_callback(database.close)

        engine = engine_services(containers, images, builder, networks, volumes)
        blobs = blob_service(images)
        system: list[Service] = []

        def summon_service(server: grpc.aio.Server) -> None:
            swarm_pb2_grpc.add_SummonServiceServicer_to_server(SummonService(membership.heed), server)

        async def for_peers(credentials: Credentials, doorkeeper: Doorkeeper) -> grpc.aio.Server:
            services = [*engine, *system, blobs, summon_service]
            return await serve_peers(f"0.0.0.0:{AGENT_PORT}", credentials.current, services, doorkeeper)

        rooms = Rooms(
            containers=containers, images=images, networks=networks, serve=for_peers, dial=peer_sources, clock=clock
        )
        membership = Membership(paths, database, rooms, default_address=settings.address)
        usage = Usage(images, containers, volumes, builder)
        asked = System(paths, containers, images, membership, chronicle, usage, settings.runtimes, settings.registries)
        servicer = SystemService(asked)
        system.append(lambda server: engine_pb2_grpc.add_SystemServiceServicer_to_server(servicer, server))
        swarm = SwarmService(membership)

        async def to_manager(_method: str, _metadata: Metadata) -> grpc.aio.Channel:
            return await membership.manager_channel()

        def manager_here(_metadata: Metadata) -> str:
            return "the manager of this node"

        local = [*engine, *system, lambda server: swarm_pb2_grpc.add_SwarmServiceServicer_to_server(swarm, server)]
        async with Group() as group:
            group.start("keeper connection", runtime.run())
            group.start("membership", membership.run())
            group.start("firewall", networks.run(clock))
            server = await serve_local(
                paths.agent_socket,
                local,
                Forward((CONTROL_SERVICE,), to_manager, whom=manager_here),
                elsewhere=Elsewhere(
                    Forward(ENGINE_SERVICES, to_manager, whom=manager_here), lambda: membership.standing().node_id
                ),
            )
            log.info("serving socket=%s", paths.agent_socket)
            process.notify("READY=1")
            await ending.wait()
            log.info("ending; containers go on")
            process.notify("STOPPING=1")
            if ending.for_a_restart:
                await membership.step_out()
            await server.stop(STOP_SERVING_S)
            paths.agent_socket.unlink(missing_ok=True)


def engine_services(
    containers: Containers, images: Images, builder: Builder, networks: Networks, volumes: Volumes
) -> list[Service]:
    """What one host does, apart from saying how it is."""
    container = ContainerService(containers)
    image = ImageService(images, containers.image_users)
    build = BuildService(builder)
    network = NetworkService(networks)
    volume = VolumeService(volumes, containers)
    return [
        lambda server: engine_pb2_grpc.add_ContainerServiceServicer_to_server(container, server),
        lambda server: engine_pb2_grpc.add_ImageServiceServicer_to_server(image, server),
        lambda server: build_pb2_grpc.add_BuildServiceServicer_to_server(build, server),
        lambda server: engine_pb2_grpc.add_NetworkServiceServicer_to_server(network, server),
        lambda server: engine_pb2_grpc.add_VolumeServiceServicer_to_server(volume, server),
    ]


def blob_service(images: Images) -> Service:
    blob = BlobService(images)
    return lambda server: blob_pb2_grpc.add_BlobServiceServicer_to_server(blob, server)


@asynccontextmanager
async def peer_sources(sources: Sequence[Source], credentials: Credentials) -> AsyncIterator[list[Peer]]:
    """Where to read blobs of an image: the agents that hold it, each proven to be the node that it is said to be."""
    async with AsyncExitStack() as stack:
        peers = [
            Peer.dial(source.address, node_id=source.node_id, identity=credentials.current()) for source in sources
        ]
        for peer in peers:
            stack.push_async_callback(peer.close)
        yield peers
