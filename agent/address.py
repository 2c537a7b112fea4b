"""Address: by which address other hosts reach this one."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable

from shoal.errors import InvalidArgument

_SIOCGIFADDR = 0x8915  # netdevice(7)
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
    listed = " and ".join(f"{address} on {link}" for link, address in found)
    raise InvalidArgument(
        "could not choose an IP address to advertise since this system has multiple addresses on different "
        f"interfaces ({listed})",
        hint="specify one with --advertise-addr",
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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, link in socket.if_nameindex():
            if link.startswith(_OURS):
                continue
            address = _of_link(control, link)
            if address is not None and not ipaddress.ip_address(address).is_loopback:
                yield link, address


def _given(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return _named(text)
    if address.is_unspecified or address.is_multicast:
        raise InvalidArgument(f"{text} is not an address that other hosts can reach", hint="specify one of this host's")
    return str(address)


def _named(link: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        found = _of_link(control, link)
    if found is None:
        raise InvalidArgument(
            f"{link!r} is neither an IPv4 address nor a network interface of this host that has one",
            hint="specify an address with --advertise-addr",
        )
    return found


def _of_link(control: socket.socket, link: str) -> str | None:
    request = struct.pack("256s", link.encode()[:15])
    try:
        answer = fcntl.ioctl(control, _SIOCGIFADDR, request)
    except OSError:
        return None  # no such link, or one without an IPv4 address
    return socket.inet_ntoa(answer[20:24])
