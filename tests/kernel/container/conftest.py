"""A whole engine for the tests of containers: the real runtime, images, networks, volumes, in a network namespace of
its own, with one small image made of the host's static busybox. Everything goes with the test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import pytest

from agent.annals import Annals
from agent.api.server import serve_local
from agent.api.system import System, SystemService
from agent.api.usage import Usage
from agent.build.builder import Builder
from agent.chronicle import REMEMBERED, Chronicle
from agent.container.containers import Containers
from agent.container.runtimes import of_host
from agent.daemon import engine_services
from agent.image.images import Images
from agent.kernel import syscalls
from agent.network.networks import Networks
from agent.runtime import wire
from agent.runtime.runtime import Runtime
from agent.standing import Said, Standing
from agent.volume.volumes import Volumes
from shoal.clock import SystemClock
from shoal.errors import NotFound, ShoalError
from shoal.forward import Forward
from shoal.model.container import Container, ContainerSpec
from shoal.rpc import Metadata
from shoal.settings import Paths
from shoal.v1.engine_pb2_grpc import add_SystemServiceServicer_to_server

ROOMS = Path(syscalls.__file__).parents[2]
CGROUP = f"shoal-test-{os.getpid()}"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n"
GROUP = b"root:x:0:\nweb:x:1001:\nwheel:x:10:web\n"


@pytest.fixture(autouse=True)
def own_network() -> Iterator[None]:
    """This thread, and all that it starts, in a network of its own."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        syscalls.call("unshare", syscalls.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        syscalls.setns(before, syscalls.CLONE_NEWNET)
        os.close(before)


class Engine:
    """What an agent is made of. `restart` is the agent's `kill -9` and its next start: nothing is closed politely."""

    cgroup = CGROUP

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    async def open(self) -> None:
        clock = SystemClock()
        self.chronicle = Chronicle(clock, Annals(self.paths.run / "events", REMEMBERED))
        tell = self.chronicle.tell
        self.runtime = await Runtime.open(run_dir=self.paths.run, cgroup_parent=CGROUP)
        self.images = await Images.open(self.paths.images, tell=tell)
        self.networks = await Networks.open(data_dir=self.paths.data, run_dir=self.paths.run, tell=tell)
        self.volumes = await Volumes.open(self.paths.volumes, tell=tell)
        self.containers = await Containers.open(
            paths=self.paths,
            runtime=self.runtime,
            images=self.images,
            networks=self.networks,
            volumes=self.volumes,
            clock=clock,
            tell=tell,
            runtimes=of_host(),
        )
        self.builder = await Builder.open(
            self.paths, images=self.images, runtime=self.runtime, networks=self.networks, clock=clock
        )

    async def close(self) -> None:
        await self.containers.close()
        await self.networks.close()
        await self.runtime.close()

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def add(self, name: str, *changes: str, platform: str = "") -> str:
        """An image of busybox, with these lines of a Dockerfile."""
        return await self.images.import_image(
            _chunks(busybox()), reference=f"{name}:latest", message="", changes=changes, platform=platform
        )

    async def run(self, *args: str, name: str = "", start: bool = True, image: str = "busybox", **fields) -> Container:
        """Create a container, and start it."""
        spec_fields = {key: fields.pop(key) for key in tuple(fields) if key in ContainerSpec.__struct_fields__}
        spec = ContainerSpec(image=image, args=args, **spec_fields)
        container = await self.containers.create(Container(name=name, spec=spec, **fields))
        return await self.containers.start(container.meta.id) if start else container

    async def output(self, *args: str, **fields) -> tuple[int, bytes, bytes]:
        """Run to the end: (exit code, stdout, stderr)."""
        container = await self.run(*args, start=False, **fields)
        attachment = await self.containers.visits.attach(container.meta.id, start=True)
        return await drained(attachment)


async def drained(attachment) -> tuple[int, bytes, bytes]:
    """Everything until the end: (exit code, stdout, stderr)."""
    written = {1: b"", 2: b""}
    while (chunk := await attachment.read()) is not None:
        written[chunk[0]] += chunk[1]
    ending = await attachment.wait()
    await attachment.close()
    return getattr(ending, "exit_code", getattr(ending, "code", -1)), written[1], written[2]


class Ran(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


class Shell:
    """Runs shoal's command lines against the engine, as a process of their own, as a user does."""

    def __init__(self, socket_path: Path) -> None:
        self._socket = socket_path

    async def __call__(self, *args: str, input: bytes = b"", cwd: Path | None = None) -> Ran:
        process = await self.start(*args, cwd=cwd)
        out, err = await process.communicate(input)
        return Ran(process.returncode or 0, out, err.decode())

    async def start(self, *args: str, cwd: Path | None = None) -> asyncio.subprocess.Process:
        """One that goes on until the test ends it."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOMS)!r}); from cli.app import main; main()",
            "-H",
            f"unix://{self._socket}",
            *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, "SHOAL_WARM": "0"},  # each network of a test would get a warm process of its own
        )


class NoCluster:
    """A host that is no member of any."""

    def standing(self) -> Standing:
        return Standing()

    async def manager_says(self) -> Said:
        return Said()


async def nowhere(_method: str, _metadata: Metadata) -> grpc.aio.Channel:
    raise NotFound("there is no manager")


@pytest.fixture
async def shell(engine: Engine, tmp_path: Path) -> AsyncIterator[Shell]:
    usage = Usage(engine.images, engine.containers, engine.volumes, engine.builder)
    system = System(engine.paths, engine.containers, engine.images, NoCluster(), engine.chronicle, usage, of_host())
    services = engine_services(engine.containers, engine.images, engine.builder, engine.networks, engine.volumes)
    services.append(lambda server: add_SystemServiceServicer_to_server(SystemService(system), server))
    server = await serve_local(tmp_path / "cli.sock", services, Forward((), nowhere, whom=lambda metadata: "nobody"))
    yield Shell(tmp_path / "cli.sock")
    await server.stop(0)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    made = Engine(Paths(data=tmp_path / "data", run=tmp_path / "run"))
    await made.open()
    try:
        await made.add("busybox", 'CMD ["/bin/sh"]', "ENV IMAGE=yes")
        yield made
    finally:
        for each in await made.containers.list(all=True):
            with contextlib.suppress(Exception):
                await made.containers.remove(each.meta.id, force=True, volumes=True)
        # The resolver ends with the last network that has names.
        for each in made.networks.list():
            with contextlib.suppress(ShoalError):
                await made.networks.remove(each.meta.id)
        await made.close()
        end_keeper(made.paths.run)


def keeper_of(run: Path) -> int:
    """The keeper's pid. Raises OSError when none listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        with wire.address(run / "keeper.sock") as name:
            connection.connect(name)
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


def end_keeper(run: Path) -> None:
    try:
        keeper = os.pidfd_open(keeper_of(run))
    except OSError:
        return
    signal.pidfd_send_signal(keeper, signal.SIGTERM)
    select.select([keeper], [], [], 10)
    os.close(keeper)
    _remove_cgroups()


def _remove_cgroups() -> None:
    for folder in [*Path("/sys/fs/cgroup").glob(f"*/{CGROUP}"), Path("/sys/fs/cgroup") / CGROUP]:
        for below in sorted(folder.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                below.rmdir()


@functools.cache
def busybox() -> bytes:
    """A root with one program under many names, two users, and content for a volume."""
    names = (
        "sh cat echo sleep true false ls id env hostname touch rm mkdir stat ps kill head wc nc wget test pwd ip tty"
        " stty mount sync seq grep printf trap chmod chown df dd readlink nproc ulimit tail yes date uname whoami tar"
        " ln mv sed rmdir"
    ).split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in names:
            _link(tar, f"bin/{name}", "busybox")
        _link(tar, "var/link", "../srv/data")
        for path, data, mode, owner in (
            ("etc/passwd", PASSWD, 0o644, 0),
            ("etc/group", GROUP, 0o644, 0),
            ("srv/data/hello", b"from the image\n", 0o640, 1000),
            ("bin/broken", b"\x7fELF nonsense", 0o755, 0),
            ("bin/plain", b"#!/bin/sh\n", 0o644, 0),
        ):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.uid = len(data), mode, owner
            tar.addfile(entry, io.BytesIO(data))
        for path, mode in (("tmp", 0o1777), ("home/web", 0o755)):
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
    return buffer.getvalue()


def _link(tar: tarfile.TarFile, path: str, target: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data
