"""Box: a keeper of its own in a temporary directory, a busybox root, and configs as docker would write them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.run import Exit, Rootfs, Start, Started
from agent.runtime.runtime import Runtime
from agent.runtime.streams import Streams
from tests.kernel.controllers import folders

CAPABILITIES = [
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
        " AUDIT_WRITE"
    ).split()
]
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def mount(destination: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


class Box:
    """One runtime and what it needs. `rootfs` is the image's only layer, shared: tests that change it copy it."""

    def __init__(self, directory: Path, image: Path) -> None:
        self.directory = directory
        self.image = image
        self.run_dir = directory / "run"
        self.parent = f"shoal-test-{os.getpid()}"
        self.runtime: Runtime = None  # type: ignore[assignment]

    async def open(self) -> Runtime:
        self.runtime = await Runtime.open(run_dir=self.run_dir, cgroup_parent=self.parent)
        return self.runtime

    def config(self, *args: str, **process: Any) -> dict[str, Any]:
        return {
            "ociVersion": "1.0.2",
            "process": {
                "args": list(args),
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
                **process,
            },
            "hostname": "box",
            "annotations": {"shoal.seccomp": "default"},
            "mounts": [
                mount("/proc", "proc", "nosuid", "noexec", "nodev"),
                mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
                mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
                mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
                mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
                mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
                mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=67108864"),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network", "cgroup")],
                "maskedPaths": MASKED,
                "readonlyPaths": READONLY,
            },
        }

    def rootfs(self, name: str, *, layers: tuple[Path, ...] = ()) -> Rootfs:
        base = self.directory / "data" / name
        shutil.rmtree(base, ignore_errors=True)
        (base / "upper").mkdir(parents=True)
        (base / "work").mkdir()
        lower = tuple(str(layer) for layer in layers or (self.image,))
        return Rootfs(lower=lower, upper=str(base / "upper"), work=str(base / "work"))

    def log(self, name: str = "c") -> Path:
        return self.directory / f"{name}.log"

    async def start(self, config: dict[str, Any], *, name: str = "c", **fields: Any) -> Started:
        fields = {"rootfs": self.rootfs(name), "log_path": str(self.log(name)), **fields}
        return await self.runtime.start(Start(id=name, config=config, **fields))

    async def output(
        self, config: dict[str, Any], *, name: str = "c", keep: bool = False, **fields: Any
    ) -> tuple[Exit, str, str]:
        """Run to the end; (exit, stdout, stderr)."""
        streams = await self.runtime.attach(name)
        await self.start(config, name=name, **fields)
        exit_, out, err = await self.drain(streams)
        if not keep:
            await self.runtime.delete(name)
        return exit_, out, err

    async def sh(self, script: str, **fields: Any) -> str:
        """What a shell script in a default container prints; it must succeed."""
        exit_, out, err = await self.output(self.config("sh", "-c", script), **fields)
        assert (exit_.code, err) == (0, "")
        return out

    @staticmethod
    async def drain(streams: Streams) -> tuple[Exit, str, str]:
        texts = {1: b"", 2: b""}
        while piece := await streams.read():
            texts[piece[0]] += piece[1]
        exit_ = await streams.wait()
        await streams.close()
        return exit_, texts[1].decode(), texts[2].decode()

    @property
    def keeper(self) -> int:
        return self.process("agent.runtime.daemon", str(self.run_dir))

    @property
    def holder(self) -> int:
        """The keeper's child, or an orphan: found by the socket's directory being its only open socket's path."""
        inode = next(
            line.split()[6]
            for line in Path("/proc/net/unix").read_text().splitlines()
            if line.endswith(str(self.run_dir / "keeper/holder.sock")) and line.split()[3] == "00010000"
        )
        for entry in Path("/proc").glob("[0-9]*/fd/3"):
            with contextlib.suppress(OSError):
                if str(entry.readlink()) == f"socket:[{inode}]":
                    return int(entry.parts[2])
        raise AssertionError("no holder")

    @staticmethod
    def process(*words: str) -> int:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if all(word in text for word in words):
                    return int(entry.parent.name)
        raise ProcessLookupError(words)

    async def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"timeout: {what}"
            await asyncio.sleep(0.01)

    async def ended(self, pid: int) -> None:
        """Return once a process is dead; whether its parent knows already is none of our business."""

        def dead() -> bool:
            try:
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except (FileNotFoundError, ProcessLookupError):
                return True

        await self.until(dead, f"{pid} is dead")

    def groups(self) -> list[Path]:
        """Every cgroup below our parent."""
        return [path for top in folders(self.parent) for path in top.iterdir() if path.is_dir()]

    async def close(self) -> None:
        for name in await self.runtime.list():
            await self.runtime.delete(name)
        keeper = self.keeper
        await self.runtime.close()
        os.kill(keeper, signal.SIGTERM)
        await self.ended(keeper)
        left = self.groups()
        for top in folders(self.parent):
            with contextlib.suppress(OSError):
                top.rmdir()
        assert not left, f"cgroups are left: {left}"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_layer(tmp_path_factory.mktemp("image") / "layer")


def host_mounts(box: Box) -> list[str]:
    """What this host has mounted of what the box has; others, whose tests run beside, mount and unmount too."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if f"{box.directory}/" in line or f"{box.image}" in line or box.parent in line]


def busybox_layer(root: Path) -> Path:
    """A layer with busybox and nothing else: no /proc, /dev or /sys."""
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "tmp").mkdir(mode=0o1777)
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    applets = subprocess.run(["/usr/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout
    for applet in applets.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    return root


@pytest.fixture
async def box(tmp_path: Path, image: Path) -> AsyncIterator[Box]:
    box = Box(tmp_path, image)
    await box.open()
    yield box
    await box.close()


@pytest.fixture
async def portable_box(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    """As `box`, but the keeper uses the executor in plain Python."""
    monkeypatch.setenv("SHOAL_EXECUTOR", "portable")
    box = Box(tmp_path, image)
    await box.open()
    yield box
    await box.close()


@pytest.fixture
def fs_mount() -> Callable[..., dict[str, Any]]:
    """Builds an entry of `mounts`."""
    return mount
