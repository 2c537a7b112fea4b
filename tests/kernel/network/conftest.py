"""Hosts, an underlay between them and containers in them, all of it network namespaces of this process.

A host is a thread that left for a namespace of its own, with an event loop; whatever the code under test starts
from there (threads, the resolver) is in that namespace too. A container is an open descriptor of the namespace
that `connect` made, servers and clients are threads in it. Nothing has a path or a name, so nothing can remain.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from agent.kernel import netns, syscalls
from agent.kernel.nft import Nft
from agent.network import netlink
from agent.network.netlink import Kernel, Route
from agent.network.networks import Networks
from shoal.ids import new_local_id
from shoal.model.network import NetworkAttachment, PortProtocol

T = TypeVar("T")
TIMEOUT_S = 20.0


def inside(fd: int, work: Callable[[], T]) -> T:
    """Run `work` in a thread that went into the namespace of `fd`."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def set_bridge_netfilter(value: str) -> None:
    path = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if path.exists():
        path.write_text(value)


class Place:
    """Somewhere that sockets can be: a host or a container."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self._servers: list[socket.socket] = []

    def serve(self, port: int, address: str = "0.0.0.0", *, protocol: PortProtocol = PortProtocol.TCP) -> None:
        """Say our name, and who is asking, to everybody."""
        kind = socket.SOCK_STREAM if protocol is PortProtocol.TCP else socket.SOCK_DGRAM
        server = inside(self.fd, lambda: socket.socket(socket.AF_INET, kind))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        self._servers.append(server)
        if protocol is PortProtocol.TCP:
            server.listen(64)
        threading.Thread(target=self._answer, args=(server, protocol), daemon=True).start()

    def _answer(self, server: socket.socket, protocol: PortProtocol) -> None:
        with contextlib.suppress(OSError):
            while True:
                if protocol is PortProtocol.TCP:
                    connection, asker = server.accept()
                    connection.sendall(f"{self.name} {asker[0]}".encode())
                    threading.Thread(target=self._echo, args=(connection,), daemon=True).start()
                else:
                    _, asker = server.recvfrom(100)
                    if asker is None:  # shut down
                        return
                    server.sendto(f"{self.name} {asker[0]}".encode(), asker)

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(TIMEOUT_S)
            while data := connection.recv(100):
                connection.sendall(data)

    def ask(
        self, address: str, port: int, *, protocol: PortProtocol = PortProtocol.TCP, timeout_s: float = TIMEOUT_S
    ) -> list[str]:
        """Who answers there, and as whom it sees us."""
        with self.dial(address, port, protocol=protocol, timeout_s=timeout_s) as connection:
            if protocol is PortProtocol.UDP:
                connection.send(b"who?")
            return connection.recv(100).decode().split()

    def dial(
        self, address: str, port: int, *, protocol: PortProtocol = PortProtocol.TCP, timeout_s: float = TIMEOUT_S
    ) -> socket.socket:
        kind = socket.SOCK_STREAM if protocol is PortProtocol.TCP else socket.SOCK_DGRAM

        def connect() -> socket.socket:
            connection = socket.socket(socket.AF_INET, kind)
            connection.settimeout(timeout_s)
            try:
                connection.connect((address, port))
            except BaseException:
                connection.close()
                raise
            return connection

        return inside(self.fd, connect)

    def ping(self, address: str, *, payload_bytes: int = 8, whole: bool = False) -> bool:
        """Whether an ICMP echo comes back; `whole`: it must not be cut on the way."""

        def echo() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as probe:
                probe.settimeout(TIMEOUT_S)
                if whole:
                    probe.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
                body = struct.pack("!HH", 4242, 1) + bytes(payload_bytes)
                words = struct.unpack(f"!{(len(body)) // 2}H", body)
                total = 0x0800 + sum(words)
                total = (total & 0xFFFF) + (total >> 16)
                total = (total & 0xFFFF) + (total >> 16)
                probe.sendto(struct.pack("!BBH", 8, 0, ~total & 0xFFFF) + body, (address, 0))
                while True:
                    answer, who = probe.recvfrom(65535)
                    if answer[20] == 0 and answer[24:26] == body[:2]:
                        return who[0] == address

        try:
            return inside(self.fd, echo)
        except OSError:
            return False

    @contextlib.contextmanager
    def kernel(self) -> Iterator[Kernel]:
        place = netns.enter(f"/proc/self/fd/{self.fd}")
        try:
            yield Kernel(place.socket)
        finally:
            place.close()

    def route(self, destination: str, gateway: str) -> None:
        with self.kernel() as kernel:
            index = max(link.index for link in kernel.links().values() if link.kind == "veth" and "eth" in link.name)
            kernel.do(netlink.add_route(Route(IPv4Network(destination), index, IPv4Address(gateway))))

    def nft(self, commands: str = "list ruleset") -> str:
        """What nft prints here."""

        def run() -> str:
            nft = Nft()
            try:
                return nft.run(commands)
            finally:
                nft.close()

        return inside(self.fd, run)

    def shut(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self._servers.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Host(Place):
    """A namespace with a thread and its event loop in it. `networks` after `open`."""

    networks: Networks

    def __init__(self, name: str, folder: Path, bridge_netfilter: str) -> None:
        self._loop = uvloop.new_event_loop()
        ready: list[int] = []
        came = threading.Event()

        def live() -> None:
            syscalls.call("unshare", syscalls.CLONE_NEWNET)
            ready.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            came.set()
            asyncio.set_event_loop(self._loop)
            self._loop.run_forever()
            self._loop.close()

        self._thread = threading.Thread(target=live, name=name)
        self._thread.start()
        assert came.wait(60)
        super().__init__(name, ready[0])
        self.folder = folder
        self.address = ""
        (folder / "run").mkdir(parents=True)
        (folder / "resolv.conf").write_text("search example.test\n")
        self.containers: list[Place] = []
        with self.kernel() as kernel:
            kernel.do(netlink.link_up(1))
        inside(self.fd, lambda: set_bridge_netfilter(bridge_netfilter))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def open(self) -> Networks:
        """A fresh agent's view; call again after `close` or `crash`."""
        self.networks = self.do(
            Networks.open(
                data_dir=self.folder / "data",
                run_dir=self.folder / "run",
                resolv_conf=self.folder / "resolv.conf",
            )
        )
        return self.networks

    def close(self) -> None:
        self.do(self.networks.close())

    def container(
        self, name: str, *networks: str, aliases: tuple[str, ...] = (), started: bool = True, **options: Any
    ) -> Place:
        """A container named `name`; `.id`, `.connection` and `.address` say what it got."""
        container_id = new_local_id()
        attachments = [NetworkAttachment(network=network, aliases=aliases) for network in networks]
        connection = self.do(
            self.networks.connect(container_id, name=name, hostname=name, attachments=attachments, **options)
        )
        place = Place(name, os.open(connection.netns_path, os.O_RDONLY | os.O_CLOEXEC))
        place.id = container_id
        place.connection = connection
        place.address = connection.addresses[0].address if connection.addresses else ""
        self.containers.append(place)
        if started:
            self.do(self.networks.started(container_id))
        return place

    def end(self) -> None:
        if hasattr(self, "networks"):
            # No gateway is left to answer on, so the resolver ends too.
            self.do(self.networks.adopt(()))
            self.do(self.networks.assign((), ()))
            for network in self.networks.list():
                if network.spec.name not in ("bridge", "host", "none"):
                    self.do(self.networks.remove(network.meta.id))
            self.close()
        for container in self.containers:
            container.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self.shut()


class Lab:
    """Hosts on one underlay, 10.99.0.0/24; everything gone when it ends."""

    def __init__(self, folder: Path, bridge_netfilter: str) -> None:
        self._folder = folder
        self._bridge_netfilter = bridge_netfilter
        [self._switch] = netns.create()
        self._kernel = Kernel(self._switch.socket)
        self._kernel.do(netlink.bridge("under0", mac="02:42:0a:63:00:fe", mtu=1500))
        self._master = self._kernel.links()["under0"].index
        self.hosts: list[Host] = []

    def host(self, name: str) -> Host:
        """A host with an address on the underlay, its `eth0`."""
        host = Host(name, self._folder / name, self._bridge_netfilter)
        self.hosts.append(host)
        number = len(self.hosts)
        host.address = f"10.99.0.{number}"
        self._kernel.do(netlink.veth(f"u{number}", master=self._master, mtu=1500, peer="eth0", peer_namespace=host.fd))
        with host.kernel() as kernel:
            index = kernel.links()["eth0"].index
            kernel.do(netlink.link_up(index, mac=netlink.mac_of(IPv4Address(host.address))))
            kernel.do(netlink.add_address(index, IPv4Address(host.address), 24))
        return host

    def end(self) -> None:
        for host in self.hosts:
            host.end()
        self._switch.close()


@pytest.fixture
def lab(request, tmp_path: Path):
    """With a parameter "0" or "1": whether bridges of the hosts show their frames to netfilter (br_netfilter)."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    found = Lab(tmp_path, getattr(request, "param", "1"))
    try:
        yield found
    finally:
        found.end()


def lookup(
    place: Place, server: str, name: str, kind: str = "A", *, tcp: bool = False, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """What `server` says about `name` when asked from `place`, sorted; ["NXDOMAIN"] and the like otherwise."""
    import dns.message
    import dns.query
    import dns.rcode

    query = dns.message.make_query(name, kind)
    ask = dns.query.tcp if tcp else dns.query.udp
    answer = inside(place.fd, lambda: ask(query, server, timeout=timeout_s))
    if answer.rcode():
        return [dns.rcode.to_text(answer.rcode())]
    return sorted(str(item) for rrset in answer.answer for item in rrset)


@pytest.fixture
def resolve():
    return lookup


def words(ruleset: str) -> list[str]:
    """What a ruleset says, whatever the order."""
    return sorted(re.findall(r"[^\s{},]+", ruleset))


@pytest.fixture
def namespace():
    return inside
