"""A manager process and processes of hollow agents, as benchmarks want them.

The cluster is founded in this process, by the manager's own code, so that ten thousand nodes have their records and
certificates in seconds; then `shoal-manager` starts on what was made. Everything real from there on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec

from manager.ca.authority import Authority
from manager.control.action import commit, create
from manager.founding import Founder, roots_of
from manager.store.mirror import Mirror
from manager.store.sqlite import SqliteStore
from shoal import defaults
from shoal.clock import SystemClock
from shoal.ids import new_ids
from shoal.model.base import Meta
from shoal.model.node import Availability, Node, NodeSpec, NodeState, NodeStatus, Role
from shoal.rpc import MAX_MESSAGE_BYTES
from shoal.tls import Identity
from shoal.v1.control_pb2_grpc import ControlServiceStub
from tests.unit.manager.test_daemon import free_port

PROJECT = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


class Hollows:
    """A process of hollow agents. `told` is what it said last."""

    def __init__(self, file: Path, manager: str, *, first: int, over_s: float) -> None:
        argv = [sys.executable, "-m", "tests.bench.hollow", "--manager", manager, "--identities", str(file)]
        argv += ["--first", str(first), "--over", str(over_s)]
        self.process = subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told: dict[str, float] = {"connected": 0, "lost": 0, "running": 0, "received": 0}
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told = json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()


class Fleet:
    """`nodes` workers beside the manager's own node, all in `folder`. Use as a context."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.identities = asyncio.run(_founded(folder / "data", nodes))
        self.manager: subprocess.Popen[bytes] | None = None
        self.hollows: list[Hollows] = []
        self._taken = 0

    def __enter__(self) -> Fleet:
        self.start_manager()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.hollows:
            each.end()
        if self.manager is not None:
            self.manager.kill()
            self.manager.wait()

    def start_manager(self) -> None:
        argv = ["--data-dir", f"{self.folder}/data", "--identity-dir", f"{self.folder}/identity"]
        argv += ["--socket", self.socket, "--listen", self.address, "--advertise", self.address]
        code = "from shoal.__main__ import manager; manager()"
        with (self.folder / "manager.log").open("ab") as log:
            self.manager = subprocess.Popen([sys.executable, "-c", code, *argv], cwd=PROJECT, stderr=log)
        until(lambda: Path(self.socket).exists(), seconds=60, what="the manager serves")

    def kill_manager(self) -> None:
        assert self.manager is not None
        self.manager.kill()
        self.manager.wait()
        Path(self.socket).unlink()

    @property
    def socket(self) -> str:
        return f"{self.folder}/manager.sock"

    def hollow(self, count: int, *, over_s: float = 0.0) -> Hollows:
        """Another process, of the next `count` nodes."""
        first, self._taken = self._taken, self._taken + count
        file = self.folder / f"identities{first}"
        file.write_bytes(msgspec.msgpack.encode(self.identities[first : self._taken]))
        started = Hollows(file, self.address, first=first, over_s=over_s)
        self.hollows.append(started)
        return started

    def control(self) -> ControlServiceStub:
        """The manager's API, as local root has it."""
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
        return ControlServiceStub(grpc.insecure_channel(f"unix:{self.socket}", options=options))

    def cpu_s(self) -> float:
        assert self.manager is not None
        return cpu_s(self.manager.pid)

    def freeze(self, hollows: Hollows) -> None:
        """The hosts stand still: their connections stay open and nobody answers."""
        hollows.process.send_signal(signal.SIGSTOP)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has taken (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def until(holds: Callable[[], Any], *, seconds: float, what: str, every_s: float = 0.02) -> float:
    """Wait for it and return how long that took."""
    start = time.monotonic()
    while not holds():
        if time.monotonic() > start + seconds:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(every_s)
    return time.monotonic() - start


async def _founded(data_dir: Path, nodes: int) -> Sequence[Identity]:
    """A cluster with so many nodes that never called, and who they are."""
    clock = SystemClock()
    data_dir.mkdir(parents=True)
    store = await SqliteStore.open(data_dir / "store.db", clock=clock)
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    try:
        await mirror.reached(0)
        founder = Founder("bench", Availability.DRAIN, defaults.CLUSTER)
        roots = await roots_of(store, mirror, data_dir, founder, clock)
        cluster = mirror.cluster
        assert cluster is not None
        ids = new_ids(nodes)
        made = [
            Node(Meta(id, created_at_ns=clock.now_ns()), NodeSpec(), status=NodeStatus(NodeState.DOWN)) for id in ids
        ]
        await commit(store, [create(each, "benchmark") for each in made])
        return [_identity(roots.authority, id, cluster.meta.id, clock.now_ns()) for id in ids]
    finally:
        following.cancel()
        await store.close()


def _identity(authority: Authority, node_id: str, cluster_id: str, now_ns: int) -> Identity:
    return authority.new_identity(
        node_id=node_id, cluster_id=cluster_id, role=Role.WORKER, life_ns=24 * 3600 * 10**9, now_ns=now_ns
    )
