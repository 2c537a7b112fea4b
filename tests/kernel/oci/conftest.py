"""Bench: bundles as people write them, and any OCI runtime of this host to run them with.

Everything is below one temporary directory and one cgroup; what a test leaves is a failure of the test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.kernel.syscalls import heed_internal_signals
from tests.kernel.controllers import folders
from tests.kernel.runtime.conftest import CAPABILITIES, MASKED, READONLY, busybox_layer, mount
from tests.signals import none_ignored

RUNTIME = str(Path(sys.executable).with_name("shoal-runtime"))
# Told by the exit code: what a short process writes to its terminal Podman may lose, on two busy cores 10 times in 60
# with runc.
OWN_TERMINAL = 'test "$(tty)" = /dev/pts/0'


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Bench:
    """`runtime` is the program that runs the bundles; the options in front of the command are its own."""

    def __init__(self, directory: Path, layer: Path, *runtime: str) -> None:
        self.directory = directory
        self.layer = layer
        self.runtime = [*(runtime or (RUNTIME,)), "--root", str(directory / "state")]
        self.parent = f"/shoal-oci-{os.getpid()}-{directory.name}"
        directory.mkdir(exist_ok=True)

    def config(self, *args: str, **process: Any) -> dict[str, Any]:
        """What an engine asks for, with a cgroup below our parent."""
        return {
            "ociVersion": "1.0.2",
            "process": {
                "args": list(args),
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
                **process,
            },
            "root": {"path": "rootfs"},
            "hostname": "bench",
            "mounts": [
                mount("/proc", "proc", "nosuid", "noexec", "nodev"),
                mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
                mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
                mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
                mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            ],
            "linux": {
                "cgroupsPath": f"{self.parent}/c",
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network", "cgroup")],
                "maskedPaths": MASKED,
                "readonlyPaths": READONLY,
            },
        }

    def bundle(self, config: dict[str, Any], name: str = "bundle") -> Path:
        bundle = self.directory / name
        if not bundle.exists():
            bundle.mkdir()
            shutil.copytree(self.layer, bundle / "rootfs", symlinks=True)
        (bundle / "config.json").write_text(json.dumps(config))
        return bundle

    def call(self, *words: str, **options: Any) -> Done:
        """One command of the runtime, to its end."""
        done = subprocess.run(
            [*self.runtime, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **options
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, config: dict[str, Any], *options: str, **more: Any) -> Done:
        return self.call("run", "--bundle", str(self.bundle(config)), *options, "c", **more)

    def sh(self, script: str, **process: Any) -> str:
        """What a script prints in a container that ends well."""
        done = self.run(self.config("sh", "-c", script, **process))
        assert (done.code, done.err) == (0, "")
        return done.out

    def create(self, config: dict[str, Any], *options: str) -> Done:
        """Its stdio is a file: who creates reads only what the runtime itself has to say."""
        with (self.directory / "output").open("w") as output:
            process = subprocess.Popen(
                [*self.runtime, "create", "--bundle", str(self.bundle(config)), *options, "c"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            code = process.wait(60)
        return Done(code, "", self.output())

    def output(self) -> str:
        return (self.directory / "output").read_text()

    def started(self, config: dict[str, Any]) -> int:
        """Create and start; the first process's pid."""
        for done in (self.create(config), self.call("start", "c")):
            assert (done.code, done.err) == (0, ""), done
        return int(self.state()["pid"])

    def state(self) -> dict[str, Any]:
        done = self.call("state", "c")
        assert done.code == 0, done
        state: dict[str, Any] = json.loads(done.out)
        return state

    def groups(self) -> list[Path]:
        return [path for top in folders(self.parent.strip("/")) for path in top.glob("c*") if path.is_dir()]

    def close(self) -> None:
        self.call("delete", "--force", "c")
        left = self.groups()
        for top in folders(self.parent.strip("/")):
            top.rmdir()
        assert not left, f"cgroups are left: {left}"
        state = self.directory / "state"
        assert not state.exists() or not list(state.iterdir()), "state is left"


@contextmanager
def without_leavings(*names: str) -> Iterator[None]:
    """Engines leave the cgroup that they put all of theirs into: removed, unless it was there before."""

    def groups() -> set[Path]:
        return {path for name in names for path in Path("/sys/fs/cgroup").glob(f"*/{name}")}

    before = groups()
    yield
    for top in groups() - before:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """posix_spawn(3) leaves a signal of its own ignored as well; crun and runc hand it on to containers, we do not."""
    heed_internal_signals()
    with none_ignored():
        yield


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_layer(tmp_path_factory.mktemp("image") / "layer")


@pytest.fixture
def bench(tmp_path: Path, layer: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "bench", layer)
    yield bench
    bench.close()
