"""Manager processes and processes of hollow agents, as benchmarks want them.

The cluster is founded in this process, by the manager's own code, so that ten thousand nodes have their records and
certificates in seconds; then `shoal-manager` starts on what was made. Everything real from there on.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
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
from manager.founding import SEAL_FILE, Founder, issued, roots_of
from manager.store.base import Store
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal import defaults
from shoal.clock import Clock, SystemClock
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


class ManagerProcess:
    """One manager, all of it in `folder`. With `endpoints` its store is the etcd there, else a file of its own."""

    def __init__(self, folder: Path, endpoints: Sequence[str] = ()) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.socket = f"{folder}/manager.sock"
        self._endpoints = endpoints
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it serves."""
        argv = ["--data-dir", f"{self.folder}/data", "--identity-dir", f"{self.folder}/identity"]
        argv += ["--socket", self.socket, "--listen", self.address, "--advertise", self.address]
        if self._endpoints:
            argv += ["--store", "etcd", "--etcd-endpoints", ",".join(self._endpoints)]
        code = "from shoal.__main__ import manager; manager()"
        with (self.folder / "manager.log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-c", code, *argv], cwd=PROJECT, stderr=log)
        until(lambda: Path(self.socket).exists(), seconds=60, what="the manager serves")

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            Path(self.socket).unlink(missing_ok=True)

    def control(self) -> ControlServiceStub:
        """Its API, as local root has it."""
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
        return ControlServiceStub(grpc.insecure_channel(f"unix:{self.socket}", options=options))

    def cpu_s(self) -> float:
        assert self._process is not None
        return cpu_s(self._process.pid)


class Fleet:
    """A manager and `nodes` workers beside its own node, all in `folder`; the state is in the etcd at `endpoint`, if
    there is one. Use as a context."""

    def __init__(self, folder: Path, nodes: int, *, endpoint: str = "") -> None:
        self.folder = folder
        endpoints = [endpoint] if endpoint else []
        self.manager = ManagerProcess(folder, endpoints)
        self.identities = asyncio.run(founded([folder], nodes, endpoints))
        self.hollows: list[Hollows] = []
        self._taken = 0

    def __enter__(self) -> Fleet:
        self.manager.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.hollows:
            each.end()
        self.manager.kill()

    def hollow(self, count: int, *, over_s: float = 0.0) -> Hollows:
        """Another process, of the next `count` nodes."""
        first, self._taken = self._taken, self._taken + count
        file = self.folder / f"identities{first}"
        file.write_bytes(msgspec.msgpack.encode(self.identities[first : self._taken]))
        started = Hollows(file, self.manager.address, first=first, over_s=over_s)
        self.hollows.append(started)
        return started

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


async def founded(folders: Sequence[Path], nodes: int, endpoints: Sequence[str] = ()) -> Sequence[Identity]:
    """A cluster with a manager in each folder and so many workers that never called; who these are."""
    clock = SystemClock()
    for folder in folders:
        (folder / "data").mkdir(parents=True)
    store = await _opened(folders[0], endpoints, clock)
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    try:
        await mirror.reached(0)
        founder = Founder("bench", Availability.DRAIN, defaults.CLUSTER)
        roots = await roots_of(store, mirror, folders[0] / "data", founder, clock)
        cluster = mirror.cluster
        assert cluster is not None
        first = next(iter(mirror.nodes))
        others = [_node(id, clock, Role.MANAGER) for id in new_ids(len(folders) - 1)]
        made = [_node(id, clock) for id in new_ids(nodes)]
        await commit(store, [create(each, "benchmark") for each in (*others, *made)])
        for folder, id in zip(folders, (first, *(each.meta.id for each in others)), strict=True):
            issued(roots.authority, cluster, id, "127.0.0.1", clock.now_ns()).save(folder / "identity")
            if folder != folders[0]:
                shutil.copy(folders[0] / "data" / SEAL_FILE, folder / "data")
        return [_identity(roots.authority, each.meta.id, cluster.meta.id, clock.now_ns()) for each in made]
    finally:
        following.cancel()
        await store.close()


async def _opened(folder: Path, endpoints: Sequence[str], clock: Clock) -> Store:
    if endpoints:
        return await EtcdStore.open(EtcdSettings(tuple(endpoints)), clock=clock)
    return await SqliteStore.open(folder / "data/store.db", clock=clock)


def _node(id: str, clock: Clock, role: Role = Role.WORKER) -> Node:
    spec = NodeSpec(role, Availability.DRAIN if role is Role.MANAGER else Availability.ACTIVE)
    return Node(Meta(id, created_at_ns=clock.now_ns()), spec, status=NodeStatus(NodeState.DOWN))


def _identity(authority: Authority, node_id: str, cluster_id: str, now_ns: int) -> Identity:
    return authority.new_identity(
        node_id=node_id, cluster_id=cluster_id, role=Role.WORKER, life_ns=24 * 3600 * 10**9, now_ns=now_ns
    )
