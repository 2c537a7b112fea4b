"""The resolver as a process: it lives apart from the agent, is replaced when old, and stands what is thrown at it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

import pytest
from dns.exception import Timeout

from agent.network.dns.process import ResolverProcess
from agent.network.dns.zone import Zone, dump
from shoal.errors import Unavailable
from shoal.model.network import PortProtocol

pytestmark = pytest.mark.kernel

GATEWAY = "127.0.0.1"


class Keeper:
    """A ResolverProcess in a host, answering for 127.0.0.1."""

    def __init__(self, host):
        self.host = host
        self.folder = host.folder / "run"
        self.process = self.new()
        self.write(GATEWAY, web="10.0.0.2")

    def new(self):
        return ResolverProcess(self.folder, self.host.folder / "resolv.conf", lambda: 0.0)

    def write(self, gateway, **names):
        zones = self.folder / "zones"
        zones.mkdir(exist_ok=True)
        content = dump(Zone("app", names={name: [address] for name, address in names.items()}))
        beside = self.folder / "beside"
        beside.write_bytes(content)
        beside.rename(zones / f"{gateway}.json")

    def refresh(self):
        self.host.do(self.process.refresh())

    def pid(self):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            control.connect(str(self.folder / "resolver.sock"))
            control.sendall(b"hello\n")
            return json.loads(control.recv(1000))["pid"]

    def end(self):
        for path in (self.folder / "zones").glob("*.json"):
            path.unlink()
        self.refresh()
        self.host.do(self.process.close())


@pytest.fixture
def keeper(lab):
    found = Keeper(lab.host("n1"))
    found.refresh()
    yield found
    found.end()


def gone(pid):
    deadline = time.monotonic() + 60
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_names_are_known_from_the_moment_their_file_is_there(keeper, resolve):
    assert resolve(keeper.host, GATEWAY, "web") == ["10.0.0.2"]
    for number in range(3, 8):
        keeper.write(GATEWAY, web=f"10.0.0.{number}")
        assert resolve(keeper.host, GATEWAY, "web") == [f"10.0.0.{number}"]


def test_gateways_come_and_go(keeper, resolve):
    keeper.write("127.0.0.9", db="10.0.0.9")
    keeper.refresh()
    assert resolve(keeper.host, "127.0.0.9", "db") == ["10.0.0.9"]
    (keeper.folder / "zones" / "127.0.0.9.json").unlink()
    keeper.refresh()
    with pytest.raises(Exception, match=r"refused|timed out"):
        resolve(keeper.host, "127.0.0.9", "db", timeout_s=0.2)
    assert resolve(keeper.host, GATEWAY, "web") == ["10.0.0.2"]


def test_the_next_agent_takes_the_resolver_over(keeper):
    before = keeper.pid()
    keeper.host.do(keeper.process.close())
    keeper.process = keeper.new()
    keeper.refresh()
    assert keeper.pid() == before


def test_a_resolver_of_another_version_is_replaced(keeper, resolve):
    before = keeper.pid()
    keeper.host.do(keeper.process.close())
    keeper.process = keeper.new()
    keeper.process.version = "newer"
    keeper.refresh()
    assert keeper.pid() != before
    assert resolve(keeper.host, GATEWAY, "web") == ["10.0.0.2"]
    gone(before)


def test_it_ends_with_the_last_gateway_and_starts_with_the_next(keeper, resolve):
    before = keeper.pid()
    (keeper.folder / "zones" / f"{GATEWAY}.json").unlink()
    keeper.refresh()
    gone(before)
    keeper.write(GATEWAY, web="10.0.0.5")
    keeper.refresh()
    assert resolve(keeper.host, GATEWAY, "web") == ["10.0.0.5"]


def test_a_gateway_that_is_taken_is_logged_and_tried_again(keeper, resolve, caplog):
    keeper.host.serve(53, "127.0.0.9")
    keeper.write("127.0.0.9", db="10.0.0.9")
    keeper.refresh()
    assert "cannot answer DNS on 127.0.0.9:53: Address already in use" in caplog.text
    assert resolve(keeper.host, GATEWAY, "web") == ["10.0.0.2"]


def test_garbage_and_crowds_do_not_stop_it(keeper, resolve):
    noise = [os.urandom(size) for size in (1, 5, 11, 12, 13, 40, 600, 4000)]
    with keeper.host.dial(GATEWAY, 53, protocol=PortProtocol.UDP) as asker:
        for _ in range(50):
            for each in noise:
                asker.send(each)
    crowd = [keeper.host.dial(GATEWAY, 53) for _ in range(60)]
    try:
        for connection in crowd[:10]:
            connection.send(b"\xff\xff")
        assert answered(keeper, resolve) == ["10.0.0.2"]
    finally:
        for connection in crowd:
            connection.close()
    assert answered(keeper, resolve, tcp=True) == ["10.0.0.2"]


def answered(keeper, resolve, **how):
    """The answer to who asks again, as clients do: in a crowd a question may find no room."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return resolve(keeper.host, GATEWAY, "web", timeout_s=2, **how)
        except (OSError, EOFError, Timeout):
            assert time.monotonic() < deadline


def test_a_resolver_that_cannot_start_is_said(keeper):
    before = keeper.pid()
    keeper.host.do(keeper.process.close())
    keeper.host.do(_end(keeper, before))
    keeper.process = keeper.new()
    (keeper.folder / "resolver.log").unlink()
    (keeper.folder / "resolver.log").mkdir()
    with pytest.raises((Unavailable, OSError)):
        keeper.refresh()
    (keeper.folder / "resolver.log").rmdir()
    keeper.refresh()


async def _end(keeper, pid):
    os.kill(pid, 9)
    gone(pid)
