"""The runtime step alone, beside crun and runc: a container of `true` from the order to its end, and an exec.

Ours goes through the keeper as the agent does: start, wait, delete, and a log is written. Theirs is one command line,
`run`. Both have the same config, seccomp profile and root, a plain directory on the disk, and both keep their state on
a tmpfs, as in the /run of a host.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from agent.runtime.profile import default_profile
from agent.runtime.run import Rootfs, Start
from tests.bench.row import Row, awaited_in_turns, row
from tests.kernel.runtime.conftest import Box, busybox_layer

TIMES = 40
PEERS = ("crun", "runc")
RUN = "/dev/shm"
LOGGED = 64 << 20
_MANAGER = {"crun": ["--cgroup-manager=cgroupfs"], "runc": []}
# crun refuses hosts that have both versions of cgroups: all sides run where the second one is out of sight.
_ALONE = 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$0" -m tests.bench.bench_runtime'


def rows() -> list[Row]:
    """Measured in a mount namespace of its own."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ALONE, sys.executable]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
    found: list[Row] = json.loads(done.stdout)
    return found


def measure() -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as disk,
        tempfile.TemporaryDirectory(dir=RUN) as run,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # as the agent has it
    ):
        place = Place(busybox_layer(Path(disk) / "image"), Path(run))
        found = []
        with _box(place, runner) as box:
            found += [_run(f"runtime.vs_{peer}", box, place, runner, peer) for peer in PEERS]
            found.append(_exec(box, place, runner))
            found.append(_logs(box, place, runner))
        with _box(place, runner, SHOAL_EXECUTOR="portable") as box:
            found.append(_run("runtime.portable.vs_crun", box, place, runner, "crun"))
        return found


class Place(NamedTuple):
    """`root` is every container's root, `run` where runtimes keep their state."""

    root: Path
    run: Path


@contextlib.contextmanager
def _box(place: Place, runner: asyncio.Runner, **environment: str) -> Iterator[Box]:
    """A keeper that is started with `environment` besides."""
    os.environ |= environment
    box = Box(place.run / "-".join(["ours", *environment.values()]), place.root)
    runner.run(box.open())
    try:
        yield box
    finally:
        runner.run(box.close())
        for name in environment:
            del os.environ[name]


def _run(name: str, box: Box, place: Place, runner: asyncio.Runner, peer: str) -> Row:
    config = box.config("true")
    start = Start(id="c", config=config, rootfs=Rootfs(path=str(place.root)), log_path=str(box.log()))

    async def ours() -> None:
        await box.runtime.start(start)
        assert (await box.runtime.wait("c")).code == 0
        await box.runtime.delete("c")

    theirs = _peer_run(peer, place, config) if shutil.which(peer) else None
    return row(name, *runner.run(awaited_in_turns(ours, theirs, TIMES)), "ms")


def _exec(box: Box, place: Place, runner: asyncio.Runner) -> Row:
    config = box.config("sleep", "1000")
    runner.run(box.start(config, rootfs=Rootfs(path=str(place.root))))

    async def ours() -> None:
        streams = await box.runtime.exec("c", {"args": ["true"]}, stdin=False, tty=False)
        assert (await streams.wait()).code == 0
        await streams.close()

    if shutil.which("crun") is None:
        return row("exec.vs_crun", *runner.run(awaited_in_turns(ours, None, TIMES)), "ms")
    name = f"bench{os.getpid()}"
    bundle = _bundle(place, "crun-exec", config)
    crun = ["crun", "--root", str(place.run / "crun"), *_MANAGER["crun"]]
    _quietly(*crun, "run", "-d", "-b", str(bundle), name)
    try:
        theirs = functools.partial(_quietly, *crun, "exec", name, "true")
        return row("exec.vs_crun", *runner.run(awaited_in_turns(ours, theirs, TIMES)), "ms")
    finally:
        _quietly(*crun, "delete", "-f", name)


def _logs(box: Box, place: Place, runner: asyncio.Runner) -> Row:
    """How fast a container's lines go to its log while nobody reads, beside a pipe. Better when higher."""
    (place.root / "lines").write_bytes((b"x" * 99 + b"\n") * (LOGGED // 100))
    config, log = box.config("cat", "/lines"), place.root.with_name("log")

    async def ours() -> None:
        limits = {"log_path": str(log), "log_max_bytes": LOGGED // 4, "log_max_files": 2}
        await box.start(config, name="logged", rootfs=Rootfs(path=str(place.root)), **limits)
        assert (await box.runtime.wait("logged")).code == 0
        await box.runtime.delete("logged")

    piped = f"cat {place.root}/lines | cat > /dev/null"
    taken = runner.run(awaited_in_turns(ours, functools.partial(_quietly, "sh", "-c", piped), 5))
    mine, theirs = ([LOGGED / 1e3 / ms for ms in side] for side in taken)
    return row("logs.vs_cat", mine, theirs, "MB/s")


def _peer_run(peer: str, place: Place, config: dict[str, Any]) -> Callable[[], None]:
    bundle = _bundle(place, peer, config)
    argv = [peer, "--root", str(place.run / peer), *_MANAGER[peer], "run", "-b", str(bundle), f"bench{os.getpid()}"]
    return lambda: _quietly(*argv)


def _bundle(place: Place, name: str, config: dict[str, Any]) -> Path:
    """A bundle of the same config, in words that other runtimes know."""
    bundle = place.root.with_name(name)
    bundle.mkdir(exist_ok=True)
    theirs = json.loads(json.dumps(config))
    theirs["root"] = {"path": str(place.root)}
    theirs.pop("annotations")
    theirs["linux"]["seccomp"] = default_profile(theirs["process"]["capabilities"]["bounding"])
    theirs["linux"]["cgroupsPath"] = f"/shoal-bench-{os.getpid()}-{name}"
    (bundle / "config.json").write_text(json.dumps(theirs))
    return bundle


def _quietly(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    print(json.dumps(measure()))
