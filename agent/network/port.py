"""Published ports of this host: who has which, and which are still free.

A port is published by an element of an nft map, not by a listening process; so "busy" means: given to another
container, used by the mesh, or held by some process of the host, which a bind finds out (`held`). A process that
takes the port later is in the shadow of the map.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

import msgspec

from shoal.errors import Exhausted, InvalidArgument, Unsupported
from shoal.model.network import Port, PortProtocol, PublishMode

FIRST_FREE = 32768
LAST_FREE = 60999
_LISTENING = "0A"
Held = Callable[[PortProtocol, str, int], bool]


class Ports:
    """The ports that containers of this host have published. `held` says whether a process holds one."""

    def __init__(self, held: Held, chance: Callable[[], float]) -> None:
        self._held = held
        self._taken: dict[tuple[PortProtocol, int], dict[str, str]] = {}
        self._mesh: frozenset[tuple[PortProtocol, int]] = frozenset()
        self._next = FIRST_FREE + int(chance() * (LAST_FREE - FIRST_FREE))

    def mesh(self, ports: Iterable[tuple[PortProtocol, int]]) -> None:
        """What the cluster's services publish; nobody else gets these."""
        self._mesh = frozenset(ports)

    def hold(self, container_id: str, ports: Iterable[Port]) -> None:
        """Take ports without asking, for a container that has them already."""
        for port in ports:
            self._taken.setdefault((port.protocol, port.published), {})[port.host_address] = container_id

    def take(self, container_id: str, wanted: Iterable[Port]) -> tuple[Port, ...]:
        """All of `wanted`, in their order, with a free number for each 0, or none.

        Raises Exhausted for a busy port, naming it, and InvalidArgument for an address that is not this host's.
        """
        checked = [_checked(port) for port in wanted]
        taken: dict[int, Port] = {}
        # Numbers asked for first, so that a free one cannot take them.
        order = sorted(range(len(checked)), key=lambda number: checked[number].published == 0)
        try:
            for number in order:
                port = checked[number]
                found = self._any(port) if port.published else self._free(port)
                self.hold(container_id, (found,))
                taken[number] = found
        except BaseException:
            self.release(container_id, taken.values())
            raise
        return tuple(taken[number] for number in range(len(checked)))

    def release(self, container_id: str, ports: Iterable[Port]) -> None:
        """Give back; what another container has meanwhile stays."""
        for port in ports:
            holders = self._taken.get((port.protocol, port.published), {})
            if holders.get(port.host_address) == container_id:
                del holders[port.host_address]
                if not holders:
                    del self._taken[port.protocol, port.published]

    def _any(self, port: Port) -> Port:
        """The first free one of those wished for. Raises Exhausted for the last."""
        for number in range(port.published, port.published_last):
            with contextlib.suppress(Exhausted):
                return self._fixed(msgspec.structs.replace(port, published=number, published_last=0))
        last = port.published_last or port.published
        return self._fixed(msgspec.structs.replace(port, published=last, published_last=0))

    def _fixed(self, port: Port) -> Port:
        where = f"{port.host_address or '0.0.0.0'}:{port.published}"
        if self._given(port.protocol, port.host_address, port.published):
            raise Exhausted(f"Bind for {where} failed: port is already allocated")
        if self._held(port.protocol, port.host_address, port.published):
            raise Exhausted(
                f"Bind for {where} failed: port is already allocated", hint="a process of this host listens there"
            )
        return port

    def _free(self, port: Port) -> Port:
        for _ in range(LAST_FREE - FIRST_FREE + 1):
            number = self._next
            self._next = number + 1 if number < LAST_FREE else FIRST_FREE
            if not self._given(port.protocol, port.host_address, number) and not self._held(
                port.protocol, port.host_address, number
            ):
                return msgspec.structs.replace(port, published=number)
        raise Exhausted(f"all ports between {FIRST_FREE} and {LAST_FREE} of this host are allocated")

    def _given(self, protocol: PortProtocol, host_address: str, number: int) -> bool:
        if (protocol, number) in self._mesh:
            return True
        holders = self._taken.get((protocol, number), {})
        return bool(holders) and (not host_address or "" in holders or host_address in holders)


def _checked(port: Port) -> Port:
    """With "all addresses" as an empty `host_address`, and numbers that can be."""
    if not 0 < port.target < 65536 or not 0 <= port.published < 65536 or not 0 <= port.published_last < 65536:
        raise InvalidArgument(f"port {port.published}:{port.target} is not between 1 and 65535")
    host_address = "" if port.host_address in ("", "0.0.0.0", "::") else port.host_address
    if host_address:
        try:
            IPv4Address(host_address)
        except AddressValueError as error:
            raise Unsupported(
                f"cannot publish port {port.published} on {host_address}", hint="use an IPv4 address of this host"
            ) from error
    return msgspec.structs.replace(port, host_address=host_address, mode=PublishMode.HOST)


def held(protocol: PortProtocol, host_address: str, number: int, *, own: Iterable[str] = ()) -> bool:
    """Whether a process of this host holds the port. Sockets on the addresses `own` do not count: those are our
    resolver's, whose port 53 stands in nobody's way.

    Raises InvalidArgument when `host_address` is not an address of this host.
    """
    kind = socket.SOCK_STREAM if protocol is PortProtocol.TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC) as probe:
        if protocol is PortProtocol.TCP:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((host_address, number))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InvalidArgument(
                    f"cannot publish port {number} on {host_address}: cannot assign requested address",
                    hint="use an address of this host, see: ip address",
                ) from error
            if error.errno != errno.EADDRINUSE:
                raise InvalidArgument(f"cannot publish port {number}: {os.strerror(error.errno or 0)}") from error
            return bool(_holders(protocol, number) - set(own))
    return False


def _holders(protocol: PortProtocol, number: int) -> set[str]:
    """The local addresses on which a port is bound (proc_net_tcp: hexadecimal, in the host's byte order)."""
    name = "tcp" if protocol is PortProtocol.TCP else "udp"
    found = set()
    # /proc/net would be that of the process's first thread, whose namespace may be another.
    for path in (Path(f"/proc/thread-self/net/{name}"), Path(f"/proc/thread-self/net/{name}6")):
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if int(port, 16) == number and (protocol is PortProtocol.UDP or fields[3] == _LISTENING):
                ipv4 = len(address) == 8
                found.add(str(IPv4Address(bytes.fromhex(address)[::-1])) if ipv4 else address)
    return found
