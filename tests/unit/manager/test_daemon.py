"""The manager as a process: it founds one cluster, finds it again however it died, and says what is in its way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager import daemon
from shoal.rpc import dial
from shoal.tls import Identity
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.control_pb2_grpc import ControlServiceStub

ROOMS = Path(daemon.__file__).parents[1]


def free_port() -> int:
    """One whose neighbour, for joining, is free too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return int(port)
            except (OSError, OverflowError):
                continue


class Manager:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str, port: int = 0) -> subprocess.Popen[bytes]:
        argv = ["--data-dir", str(self.folder / "data"), "--identity-dir", str(self.folder / "identity")]
        argv += ["--socket", str(self.folder / "run/manager.sock"), "--listen", f"127.0.0.1:{port or self.port}"]
        argv += ["--advertise", f"127.0.0.1:{self.port}", *flags]
        code = "from shoal.__main__ import manager; manager()"
        environment = {**os.environ, "PYTHONPATH": str(ROOMS)}
        self.process = subprocess.Popen([sys.executable, "-c", code, *argv], stderr=subprocess.PIPE, env=environment)
        return self.process

    def fails(self, *flags: str, port: int = 0) -> str:
        process = self.start(*flags, port=port)
        _, said = process.communicate(timeout=30)
        assert process.returncode != 0
        return said.decode()

    async def token(self) -> str:
        async with dial(f"unix:{self.folder}/run/manager.sock") as channel:
            stub = ControlServiceStub(channel)
            request = wire.GetJoinTokenRequest(role=types_pb2.ROLE_WORKER)
            return (await stub.GetJoinToken(request, wait_for_ready=True, timeout=30)).token


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    made = Manager(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.communicate()


INIT = ("--init", "--node-name", "n1")


async def test_a_cluster_survives_its_manager(manager: Manager, tmp_path: Path) -> None:
    first = manager.start(*INIT)
    token = await manager.token()
    identity = Identity.load(tmp_path / "identity")
    assert identity is not None
    first.kill()
    first.communicate()
    (tmp_path / "identity/identity.json").unlink()  # as if killed before it was written
    second = manager.start(*INIT)
    assert await manager.token() == token
    again = Identity.load(tmp_path / "identity")
    assert again is not None
    assert (again.node_id, again.cluster_id) == (identity.node_id, identity.cluster_id)
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=30)
    assert second.returncode == 0
    assert not (tmp_path / "run/manager.sock").exists()


async def test_killed_while_it_founds_it_founds_again(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/seal.key").write_bytes(b"k" * 32)
    manager.start(*INIT)
    assert (await manager.token()).startswith("SHTKN-1-")


def test_what_is_in_the_way_is_told_in_a_sentence(manager: Manager, tmp_path: Path) -> None:
    assert "there is no cluster in" in manager.fails()
    assert "a cluster has no colour" in manager.fails(*INIT, "--spec-json", '{"colour": 1}')
    assert "certificate expiry must be at least 1h" in manager.fails(*INIT, "--spec-json", '{"certificate_life_ns": 1}')
    with socket.create_server(("127.0.0.1", 0)) as busy:
        said = manager.fails(*INIT, port=busy.getsockname()[1])
    assert said.strip().splitlines()[-1].startswith("shoal-manager: cannot listen on 127.0.0.1:")
    (tmp_path / "data/seal.key").unlink()
    assert "seal" in manager.fails(*INIT).strip().splitlines()[-1]


async def test_a_directory_has_one_manager(manager: Manager) -> None:
    first = manager.start(*INIT)
    await manager.token()
    assert "another shoal-manager runs with" in manager.fails(*INIT)
    first.kill()
    first.communicate()
