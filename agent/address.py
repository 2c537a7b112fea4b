"""Address: by which address other hosts reach this one."""

from __future__ import annotations

import array
import asyncio
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable

from shoal.errors import InvalidArgument

_SIOCGIFCONF = 0x8912  # netdevice(7)
_IFREQ_BYTES = 40
_MOST_ADDRESSES = 4096
_WAY_S = 3.0
# Links that Shoal or other engines made are not how anybody reaches this host.
_OURS = ("shoal", "shl", "shb", "shx", "shv", "docker", "br-", "veth", "virbr", "cni", "podman")


def advertised(wanted: str, *, default: str = "") -> str:
    """`wanted` or `default` (an address or a link's name), or else the only IPv4 address of this host.

    Raises InvalidArgument where there is no such address, or none, or several to choose from.
    """
    wanted = wanted or default
    if wanted:
        return _given(wanted)
    found = list(addresses())
    if len(found) == 1:
        return found[0][1]
    if not found:
        raise InvalidArgument(
            "could not choose an IP address to advertise since this system has no address",
            hint="specify one with --advertise-addr",
        )
    where = "on different interfaces" if len({link for link, _ in found}) > 1 else f"on interface {found[0][0]}"
    raise InvalidArgument(
        f"could not choose an IP address to advertise since this system has multiple addresses {where} ({_listed()})",
        hint="specify one with --advertise-addr",
    )


async def check_way(address: str, port: int, *, listen: tuple[str, int]) -> None:
    """Raises InvalidArgument for an `address` that is none of this host's, unless who connects to it at `port` comes
    out at `listen`, as behind a router that forwards it. Nobody may listen there yet."""
    if _is_own(address):
        return
    word = os.urandom(16)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)
        writer.close()

    try:
        server = await asyncio.start_server(answer, *listen)
    except OSError:
        return  # whoever is to listen there will say why that cannot be
    async with server:
        if await _heard_at(address, port, len(word)) == word:
            return
    raise InvalidArgument(
        f"could not advertise {address}: it is not a local address, and {address}:{port} does not lead to this host",
        hint=f"specify one of this system's with --advertise-addr ({_listed() or 'it has none'})",
    )


def towards(host: str, port: int) -> str:
    """This host's own address on the way to another. Nothing is sent (udp(7)). Raises InvalidArgument for none."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InvalidArgument(f"this host has no way to {host}: {error.strerror or error}") from error


def addresses() -> Iterable[tuple[str, str]]:
    """(link, IPv4 address) of every link that leads out of this host."""
    for link, address in _all():
        if not link.startswith(_OURS) and not ipaddress.ip_address(address).is_loopback:
            yield link, address


async def _heard_at(address: str, port: int, count: int) -> bytes:
    """The first bytes that somebody says there; empty when nobody does."""
    try:
        async with asyncio.timeout(_WAY_S):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                return await reader.readexactly(count)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return b""


def _is_own(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _listed() -> str:
    return " and ".join(f"{address} on {link}" for link, address in addresses())


def _given(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return _named(text)
    if address.is_unspecified or address.is_multicast:
        raise InvalidArgument(f"{text} is not an address that other hosts can reach", hint="specify one of this host's")
    return str(address)


def _named(link: str) -> str:
    found = [address for name, address in _all() if name == link]
    if not found:
        raise InvalidArgument(
            f"{link!r} is neither an IPv4 address nor a network interface of this host that has one",
            hint=f"specify an address with --advertise-addr ({_listed() or 'this system has none'})",
        )
    if len(found) > 1:
        raise InvalidArgument(
            f"interface {link} has more than one IPv4 address ({' and '.join(found)})",
            hint="specify one with --advertise-addr",
        )
    return found[0]


def _all() -> Iterable[tuple[str, str]]:
    """(link, IPv4 address), as the kernel lists them: an ifreq each, with the link's label and a sockaddr_in."""
    buffer = array.array("B", bytes(_IFREQ_BYTES * _MOST_ADDRESSES))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("iP", len(buffer), buffer.buffer_info()[0])
        filled, _ = struct.unpack("iP", fcntl.ioctl(control, _SIOCGIFCONF, request))
    for at in range(0, filled, _IFREQ_BYTES):
        entry = buffer[at : at + _IFREQ_BYTES].tobytes()
        label = entry[:16].split(b"\0", 1)[0].decode()
        yield label.split(":", 1)[0], socket.inet_ntoa(entry[20:24])
