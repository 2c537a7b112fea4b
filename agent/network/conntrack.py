"""Conversations without an end: UDP flows that the kernel would lead to a container that is gone, for as long as
the asker goes on asking (conntrack decides where a flow goes once, at its first packet).

TCP needs nothing: a connection to a container that is gone breaks, and the next one is led elsewhere. Numbers are in
linux/netfilter/nfnetlink_conntrack.h. Blocking; for one thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

from agent.kernel import netlink
from agent.kernel.netlink import Message, attributes, nested

_GET, _DELETE = 0x0101, 0x0102
_HEADER = struct.pack("!BBH", socket.AF_INET, 0, 0)
_ORIGINAL, _REPLY = 1, 2
_ADDRESSES, _PROTOCOL = 1, 2


class Conntrack:
    def __init__(self) -> None:
        self._socket = netlink.Socket(netlink.NETFILTER)

    def forget(self, gone: Iterable[IPv4Address], opened: Iterable[int] = ()) -> None:
        """End the UDP flows that lead to an address `gone`, or to this host itself at a port that was `opened` for
        somebody meanwhile, so that their next packet is led anew."""
        addresses = {address.packed for address in gone}
        ports = {struct.pack("!H", port) for port in opened}
        if not addresses and not ports:
            return
        found = [
            body
            for _, body in self._socket.dump(Message(_GET, 0, _HEADER))
            # Looking for the bytes first: a busy host has hundreds of thousands of flows.
            if any(each in body for each in (*addresses, *ports)) and ends(body[len(_HEADER) :], addresses, ports)
        ]
        self._socket.request(*(_deletion(body[len(_HEADER) :]) for body in found))

    def close(self) -> None:
        self._socket.close()


def ends(entry: bytes, addresses: set[bytes], ports: set[bytes]) -> bool:
    """Whether a flow is UDP and leads to one of `addresses`, or unled to this host at one of `ports`."""
    about = attributes(entry)
    original, reply = attributes(about.get(_ORIGINAL, b"")), attributes(about.get(_REPLY, b""))
    to, answers = attributes(original.get(_ADDRESSES, b"")), attributes(reply.get(_ADDRESSES, b""))
    protocol = attributes(original.get(_PROTOCOL, b""))
    if protocol.get(1) != bytes([socket.IPPROTO_UDP]):
        return False
    led = to.get(2) != answers.get(1)
    return answers.get(1) in addresses if led else protocol.get(3) in ports


def _deletion(entry: bytes) -> Message:
    """One that ended by itself meanwhile is as good as deleted."""
    original = attributes(entry)[_ORIGINAL]
    return Message(_DELETE, 0, _HEADER + nested(_ORIGINAL, original), (errno.ENOENT,))
