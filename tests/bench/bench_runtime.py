"""The runtime step alone, beside crun and runc: a container of `true` from the order to its end, and an exec.

Ours goes through the keeper as the agent does: start, wait, delete, with an overlay mounted and a log written. Theirs
is one command line, `run` with the same config and seccomp profile over a plain directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.runtime.profile import default_profile
from tests.bench.row import Row, in_turns, row
from tests.kernel.runtime.conftest import Box, busybox_layer

TIMES = 40
PEERS = ("crun", "runc")
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
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        base = Path(folder)
        layer = busybox_layer(base / "image")
        box = Box(base / "ours", layer)
        runner.run(box.open())
        try:
            return [*_runs(box, base, runner), *_execs(box, base, runner)]
        finally:
            runner.run(box.close())


def _runs(box: Box, base: Path, runner: asyncio.Runner) -> list[Row]:
    config = box.config("true")

    def ours() -> None:
        runner.run(once())

    async def once() -> None:
        await box.start(config)
        assert (await box.runtime.wait("c")).code == 0
        await box.runtime.delete("c")

    found = []
    for peer in PEERS:
        theirs = _peer_run(peer, base, config) if shutil.which(peer) else None
        found.append(row(f"runtime.vs_{peer}", *in_turns(ours, theirs, TIMES), "ms"))
    return found


def _execs(box: Box, base: Path, runner: asyncio.Runner) -> list[Row]:
    config = box.config("sleep", "1000")
    runner.run(box.start(config))

    def ours() -> None:
        runner.run(once())

    async def once() -> None:
        streams = await box.runtime.exec("c", {"args": ["true"]}, stdin=False, tty=False)
        assert (await streams.wait()).code == 0
        await streams.close()

    if shutil.which("crun") is None:
        return [row("exec.vs_crun", *in_turns(ours, None, TIMES), "ms")]
    state, name = str(base / "crun-exec"), f"bench{os.getpid()}"
    bundle = _bundle(base, "crun-exec-bundle", config)
    crun = ["crun", "--root", state, *_MANAGER["crun"]]
    _quietly(*crun, "run", "-d", "-b", str(bundle), name)
    try:
        return [row("exec.vs_crun", *in_turns(ours, lambda: _quietly(*crun, "exec", name, "true"), TIMES), "ms")]
    finally:
        _quietly(*crun, "delete", "-f", name)


def _peer_run(peer: str, base: Path, config: dict[str, Any]) -> Callable[[], None]:
    bundle = _bundle(base, peer, config)
    argv = [
        peer,
        "--root",
        str(base / f"{peer}-state"),
        *_MANAGER[peer],
        "run",
        "-b",
        str(bundle),
        f"bench{os.getpid()}",
    ]
    return lambda: _quietly(*argv)


def _bundle(base: Path, name: str, config: dict[str, Any]) -> Path:
    """A bundle of the same config, in words that other runtimes know."""
    bundle = base / name
    shutil.copytree(base / "image", bundle / "rootfs", symlinks=True)
    theirs = json.loads(json.dumps(config))
    theirs["root"] = {"path": "rootfs"}
    theirs.pop("annotations")
    theirs["linux"]["seccomp"] = default_profile(theirs["process"]["capabilities"]["bounding"])
    theirs["linux"]["cgroupsPath"] = f"/shoal-bench-{os.getpid()}-{name}"
    (bundle / "config.json").write_text(json.dumps(theirs))
    return bundle


def _quietly(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    print(json.dumps(measure()))
