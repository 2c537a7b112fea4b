"""RUN: one command in a container of its own, on top of a stage's layers, with what it writes as the next layer.

The container is what `run` would make of it, by the same `bundle` and the same runtime, only that nobody keeps a record
of it: an agent that starts again finds it as an orphan and ends it (`agent.container.restore`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from agent.build.flags import Network
from agent.container import host
from agent.container.baselayer import base_layer
from agent.container.bundle import Facts, bundle
from agent.container.hostfiles import PATHS, source_of, write_host_files
from agent.container.launch import user_in
from agent.container.rootview import RootView
from agent.image.layer import Place
from agent.network.networks import Networks
from agent.runtime.run import Rootfs, Start
from agent.runtime.runtime import Runtime
from shoal import ids
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec, Mount, Ulimit
from shoal.model.network import NetworkAttachment

log = logging.getLogger(__name__)

# What a command finds as its host's name: always the same, since some write it into what they make.
HOSTNAME = "shoalbuild"
_NETWORKS = {Network.DEFAULT: "bridge", Network.NONE: "none", Network.HOST: "host"}
Output = Callable[[int, bytes], Awaitable[None]]


class Setting(msgspec.Struct, frozen=True):
    """What a build gives to all of its commands. `hosts` are "name:address"."""

    network: Network = Network.DEFAULT
    hosts: tuple[str, ...] = ()
    shm_size_bytes: int = 0
    ulimits: tuple[Ulimit, ...] = ()


class Command(msgspec.Struct, frozen=True):
    """`mounts` are binds of the host's paths, and tmpfs."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str
    setting: Setting
    mounts: tuple[Mount, ...] = ()


class Runner:
    """`containers` is the folder of containers, whose lowest layer commands share."""

    def __init__(self, runtime: Runtime, networks: Networks, containers: Path) -> None:
        self._runtime = runtime
        self._networks = networks
        self._base = base_layer(containers)
        self._available = host.available_capabilities()
        self._thermal = host.thermal_files()

    async def run(self, command: Command, place: Place, lower: tuple[str, ...], output: Output) -> int:
        """The command's exit code; `output` gets what it writes (1 for stdout, 2 for stderr). `place.upper` has what it
        wrote to files, without the mount points that were made for it. Cancelled: it is killed first.

        Raises StartFailed for a limit above this host's own."""
        host.check_ulimits(command.setting.ulimits)
        layers = (*lower, self._base)
        container = _container(command)
        made = missing_targets(layers, [each.target for each in command.mounts])
        async with self._connected(container, place) as (netns_path, files):
            facts = Facts(
                cgroup=container.meta.id,
                hostname=HOSTNAME,
                user=user_in(layers, command.user, ()),
                available=self._available,
                netns_path=netns_path,
                sources=tuple(each.source for each in command.mounts),
                files=files,
                cpu_throttles=self._thermal,
            )
            code = await self._attended(container, facts, place, layers, output)
        remove_targets(place.upper, made)
        return code

    async def _attended(
        self, container: Container, facts: Facts, place: Place, layers: tuple[str, ...], output: Output
    ) -> int:
        rootfs = Rootfs(lower=layers, upper=str(place.upper), work=str(place.work), volatile=True)
        start = Start(id=container.meta.id, config=bundle(container, facts), rootfs=rootfs)
        try:
            streams = await self._runtime.attach(start.id)
            try:
                await self._runtime.start(start)
                await self._networks.started(start.id)
                while (chunk := await streams.read()) is not None:
                    await output(*chunk)
                ended = await streams.wait()
            finally:
                await streams.close()
        finally:
            await self._runtime.delete(start.id)
        return ended.code

    @contextlib.asynccontextmanager
    async def _connected(
        self, container: Container, place: Place
    ) -> AsyncIterator[tuple[str, tuple[tuple[str, str], ...]]]:
        """The path of its network's namespace, and the files that go over its own."""
        folder = place.upper.parent
        try:
            connection = await self._networks.connect(
                container.meta.id,
                name=container.name,
                hostname=HOSTNAME,
                attachments=container.networks,
                ports=(),
            )
            write_host_files(folder, container, HOSTNAME, connection)
            yield connection.netns_path, tuple((each, source_of(folder, each)) for each in PATHS)
        finally:
            await self._networks.disconnect(container.meta.id)


def _container(command: Command) -> Container:
    container_id = ids.new_local_id()
    setting = command.setting
    return Container(
        meta=Meta(id=container_id),
        name=f"build-{ids.short(container_id)}",
        spec=ContainerSpec(hosts=setting.hosts, shm_size_bytes=setting.shm_size_bytes, ulimits=setting.ulimits),
        networks=(NetworkAttachment(network=_NETWORKS[setting.network]),),
        argv=command.argv,
        env=command.env,
        workdir=command.workdir or "/",
        user=command.user,
        mounts=command.mounts,
    )


def missing_targets(layers: tuple[str, ...], targets: list[str]) -> list[str]:
    """The paths that the runtime will have to make so that something can be mounted there, deepest first."""
    found: dict[str, None] = {}
    with RootView(layers) as view:
        for target in targets:
            here = target.rstrip("/")
            while here and not view.exists(here):
                found[here] = None
                here = here.rpartition("/")[0]
    return sorted(found, key=lambda each: -each.count("/"))


def remove_targets(upper: Path, made: list[str]) -> None:
    """Take mount points away again in which nothing was left. What is a link by now stays."""
    for each in made:
        path = upper / each.lstrip("/")
        if any(parent.is_symlink() for parent in path.relative_to(upper).parents if str(parent) != "."):
            continue
        with contextlib.suppress(OSError):
            if path.is_symlink():
                continue
            if path.is_dir():
                path.rmdir()
            elif path.is_file() and not path.stat().st_size:
                path.unlink()


def environment(image: tuple[str, ...], more: Mapping[str, str]) -> tuple[str, ...]:
    """The image's own counts over arguments of the same name."""
    return (*(f"{name}={value}" for name, value in more.items()), *image)
