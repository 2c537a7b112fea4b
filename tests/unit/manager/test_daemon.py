"""The manager as a process: it founds one cluster, finds it again however it died, and says what is in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager import daemon
from shoal.errors import Locked, PermissionDenied, Unavailable
from shoal.rpc import dial, translated
from shoal.tls import Identity
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.control_pb2_grpc import ControlServiceStub
from shoal.v1.swarm_pb2 import UnlockRequest
from shoal.v1.swarm_pb2_grpc import UnlockServiceStub

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

    async def unlock(self, key: str) -> None:
        async with dial(f"unix:{self.folder}/run/manager.sock") as channel:
            with translated():
                await UnlockServiceStub(channel).Unlock(UnlockRequest(key=key), wait_for_ready=True, timeout=30)

    async def unlock_key(self, *, rotate: bool = False) -> str:
        async with dial(f"unix:{self.folder}/run/manager.sock") as channel:
            request = wire.GetUnlockKeyRequest(rotate=rotate)
            return (await ControlServiceStub(channel).GetUnlockKey(request, wait_for_ready=True, timeout=30)).key

    def restart(self, *flags: str) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        (self.folder / "run/manager.sock").unlink()
        self.start(*flags)


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


async def test_a_locked_manager_serves_nothing_until_it_gets_its_key(manager: Manager) -> None:
    manager.start(*INIT, "--spec-json", '{"autolock": true}')
    token, key = await manager.token(), await manager.unlock_key()
    manager.restart(*INIT)
    with pytest.raises(Locked, match="needs to be unlocked"), translated():
        await manager.token()
    with socket.socket() as port:
        assert port.connect_ex(("127.0.0.1", manager.port)) != 0
    with pytest.raises(PermissionDenied, match="invalid key"):
        await manager.unlock("SHKEY-1-" + "A" * 43)
    await manager.unlock(key)
    assert await _when_serving(manager) == token
    rotated = await manager.unlock_key(rotate=True)
    manager.restart(*INIT)
    with pytest.raises(PermissionDenied, match="invalid key"):
        await manager.unlock(key)
    await manager.unlock(rotated)
    assert await _when_serving(manager) == token


async def test_a_locked_manager_ends_when_it_is_asked_to(manager: Manager) -> None:
    manager.start(*INIT, "--spec-json", '{"autolock": true}')
    await manager.token()
    manager.restart(*INIT)
    with pytest.raises(Locked), translated():
        await manager.token()
    assert manager.process is not None
    manager.process.send_signal(signal.SIGTERM)
    manager.process.communicate(timeout=30)
    assert manager.process.returncode == 0


async def _when_serving(manager: Manager) -> str:
    """The token, once the socket of the locked manager has become that of one that serves."""
    async with asyncio.timeout(60):
        while True:
            try:
                with translated():
                    return await manager.token()
            except Unavailable:
                await asyncio.sleep(0.05)
