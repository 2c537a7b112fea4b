"""The vocabulary of rtnetlink: links, addresses, routes, neighbours and forwarding entries as messages and back.

Building is pure; `Kernel` sends. Every add is create-or-replace and every removal delete-if-present, so that
whatever was half done before a crash can simply be done again. Numbers are in linux/if_link.h and rtnetlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from agent.kernel import netlink
from agent.kernel.netlink import Message, attribute, attributes, nested, text, u32

NEW_LINK, DEL_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_UP = 0x1
_ONLINK = 0x4
_UNICAST, _UNREACHABLE = 1, 7
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_MAIN_TABLE = 254
_PERMANENT = 0x80
_SELF = 0x02
_NO_STATISTICS = 0x8  # of IFLA_EXT_MASK
# Marks our routes in rtm_protocol, so that a sweep finds them; 83 is assigned to nobody (iproute2: rt_protos).
OURS = 83


class Link(msgspec.Struct, frozen=True):
    """What a dump says of one link. `vni` is a vxlan's."""

    index: int
    name: str
    kind: str = ""
    mtu: int = 0
    mac: str = ""
    master: int = 0
    up: bool = False
    vni: int = 0


class Route(msgspec.Struct, frozen=True):
    """A route in the main table. No `device`: the destination is unreachable. `on_link`: the gateway need not be
    in a subnet of the device."""

    destination: IPv4Network
    device: int = 0
    gateway: IPv4Address | None = None
    source: IPv4Address | None = None
    on_link: bool = False
    protocol: int = OURS


class Neighbour(msgspec.Struct, frozen=True):
    """A fixed answer to ARP."""

    device: int
    address: IPv4Address
    mac: str


class Forward(msgspec.Struct, frozen=True):
    """Behind which host of the underlay a vxlan finds a MAC."""

    device: int
    mac: str
    host: IPv4Address


def mac_of(address: IPv4Address) -> str:
    """The MAC that goes with an address: as docker's, so that a neighbour's cache stays right when it is reused."""
    return "02:42:" + address.packed.hex(":")


def veth(name: str, *, master: int, mtu: int, peer: str, peer_namespace: int) -> Message:
    """A pair with `name` here, in bridge `master` and up, and `peer` at once in the other namespace.

    The peer must not be up yet: the kernel opens it before it is paired and says ENOTCONN. Nor can its index be
    chosen without choosing ours too (drivers/net/veth.c), and a new namespace may have tunnels in the first places.
    """
    # A queue for each processor, the default, is a folder in /sys for each, and of no use: a veth has no queue.
    alike = u32(4, mtu) + u32(31, 1) + u32(32, 1)  # IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES
    inside = _LINK.pack(0, 0, 0, 0, 0) + text(3, peer) + alike + u32(28, peer_namespace)  # IFLA_NET_NS_FD
    info = nested(18, text(1, "veth"), nested(2, attribute(1, inside)))
    body = _LINK.pack(0, 0, 0, _UP, _UP) + text(3, name) + alike + u32(10, master) + info
    return Message(NEW_LINK, netlink.CREATE | netlink.EXCLUSIVE, body)


def hairpin(name: str) -> Message:
    """Let a bridge send a frame back where it came from: on hosts with br_netfilter a container's packet to its own
    published port gets its new destination inside the bridge, and would be dropped there."""
    info = nested(18, text(4, "bridge"), nested(5, attribute(4, b"\1")))
    return Message(NEW_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + text(3, name) + info)


def unaddressed(*, index: int = 0, name: str = "") -> Message:
    """A link that gives itself no IPv6 address: nobody speaks to it there, and making it known to all others of its
    bridge, then forgetting it, is a good part of what a link costs. Where the kernel has no IPv6, it is so already."""
    mode = nested(26, nested(socket.AF_INET6, attribute(8, b"\1")))  # IFLA_INET6_ADDR_GEN_MODE: none
    body = _LINK.pack(0, 0, index, 0, 0) + (text(3, name) if name else b"") + mode
    return Message(NEW_LINK, 0, body, (errno.EAFNOSUPPORT,))


def bridge(name: str, *, mac: str, mtu: int) -> Message:
    """A bridge that is up. With its own MAC it does not change when ports come and go."""
    return _new_link(name, "bridge", mac=mac, mtu=mtu)


def vxlan(name: str, *, mac: str, mtu: int, vni: int, port: int) -> Message:
    """A VXLAN device that is up and learns nothing: it sends where it was told to, and nowhere else."""
    no_learning = attribute(7, b"\0")
    return _new_link(name, "vxlan", u32(1, vni), no_learning, attribute(15, struct.pack("!H", port)), mac=mac, mtu=mtu)


def _new_link(name: str, kind: str, *data: bytes, mac: str, mtu: int) -> Message:
    info = nested(18, text(1, kind), nested(2, *data))
    body = _LINK.pack(0, 0, 0, _UP, _UP) + text(3, name) + _mac(1, mac) + u32(4, mtu) + info
    return Message(NEW_LINK, netlink.CREATE, body)


def link_up(index: int, *, mac: str = "") -> Message:
    body = _LINK.pack(0, 0, index, _UP, _UP) + (_mac(1, mac) if mac else b"")
    return Message(NEW_LINK, 0, body)


def change_link(index: int, *, mac: str, mtu: int) -> Message:
    """The link is up, with this MAC and MTU."""
    return Message(NEW_LINK, 0, _LINK.pack(0, 0, index, _UP, _UP) + _mac(1, mac) + u32(4, mtu))


def delete_link(index: int) -> Message:
    return Message(DEL_LINK, 0, _LINK.pack(0, 0, index, 0, 0), netlink.GONE)


def add_address(index: int, address: IPv4Address, prefix: int) -> Message:
    flags = netlink.CREATE | netlink.REPLACE
    return Message(NEW_ADDRESS, flags, _address(index, address, prefix), (errno.EEXIST,))


def delete_address(index: int, interface: IPv4Interface) -> Message:
    return Message(DEL_ADDRESS, 0, _address(index, interface.ip, interface.network.prefixlen), netlink.GONE)


def _address(index: int, address: IPv4Address, prefix: int) -> bytes:
    body = _ADDRESS.pack(socket.AF_INET, prefix, 0, _SCOPE_UNIVERSE, index)
    body += attribute(2, address.packed) + attribute(1, address.packed)
    if prefix < 31:
        body += attribute(4, (int(address) | 0xFFFF_FFFF >> prefix).to_bytes(4))
    return body


def add_route(route: Route) -> Message:
    return Message(NEW_ROUTE, netlink.CREATE | netlink.REPLACE, _route(route))


def delete_route(route: Route) -> Message:
    return Message(DEL_ROUTE, 0, _route(route), netlink.GONE)


def _route(route: Route) -> bytes:
    kind = _UNICAST if route.device else _UNREACHABLE
    scope = _SCOPE_LINK if route.device and not route.gateway else _SCOPE_UNIVERSE
    body = _ROUTE.pack(
        socket.AF_INET, route.destination.prefixlen, 0, 0, _MAIN_TABLE, route.protocol, scope, kind,
        _ONLINK if route.on_link else 0,
    )  # fmt: skip
    body += attribute(1, route.destination.network_address.packed)
    if route.device:
        body += u32(4, route.device)
    if route.gateway:
        body += attribute(5, route.gateway.packed)
    if route.source:
        body += attribute(7, route.source.packed)
    return body


def add_neighbour(neighbour: Neighbour) -> Message:
    return Message(NEW_NEIGHBOUR, netlink.CREATE | netlink.REPLACE, _neighbour(neighbour))


def delete_neighbour(neighbour: Neighbour) -> Message:
    return Message(DEL_NEIGHBOUR, 0, _neighbour(neighbour), netlink.GONE)


def _neighbour(neighbour: Neighbour) -> bytes:
    head = _NEIGHBOUR.pack(socket.AF_INET, neighbour.device, _PERMANENT, 0, 0)
    return head + attribute(1, neighbour.address.packed) + _mac(2, neighbour.mac)


def add_forward(forward: Forward) -> Message:
    return Message(NEW_NEIGHBOUR, netlink.CREATE | netlink.REPLACE, _forward(forward))


def delete_forward(forward: Forward) -> Message:
    return Message(DEL_NEIGHBOUR, 0, _forward(forward), netlink.GONE)


def _forward(forward: Forward) -> bytes:
    head = _NEIGHBOUR.pack(socket.AF_BRIDGE, forward.device, _PERMANENT, _SELF, 0)
    return head + attribute(1, forward.host.packed) + _mac(2, forward.mac)


def _mac(kind: int, mac: str) -> bytes:
    return attribute(kind, bytes.fromhex(mac.replace(":", "")))


class Kernel:
    """The links of one network namespace, asked and told over one socket."""

    def __init__(self, connection: netlink.Socket) -> None:
        self._socket = connection

    def close(self) -> None:
        self._socket.close()

    def do(self, *messages: Message) -> None:
        """Carry out all, in order. Raises the first OSError."""
        self._socket.request(*messages)

    def links(self) -> dict[str, Link]:
        """Every link by name."""
        request = Message(GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0))
        found = (_parse_link(body) for kind, body in self._socket.dump(request) if kind == NEW_LINK)
        return {link.name: link for link in found}

    def index(self, name: str) -> int:
        """Of one link. Raises OSError where there is none of this name."""
        request = Message(GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + text(3, name) + u32(29, _NO_STATISTICS))
        return int(_LINK.unpack_from(self._socket.ask(request))[2])

    def addresses(self, index: int) -> set[IPv4Interface]:
        """The IPv4 addresses of one link."""
        request = Message(GET_ADDRESS, 0, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0))
        found = set()
        for _, body in self._socket.dump(request):
            _, prefix, _, _, link = _ADDRESS.unpack_from(body)
            local = attributes(body[_ADDRESS.size :]).get(2)
            if link == index and local:
                found.add(IPv4Interface((local, prefix)))
        return found

    def routes(self) -> set[Route]:
        """Every IPv4 route of the main table, default routes among them."""
        request = Message(GET_ROUTE, 0, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))
        return {route for _, body in self._socket.dump(request) for route in _parse_route(body)}

    def neighbours(self) -> set[Neighbour]:
        """The permanent IPv4 neighbours."""
        found = set()
        for index, state, about in self._neighbours(socket.AF_INET):
            if state & _PERMANENT and 1 in about and len(about.get(2, b"")) == 6:
                found.add(Neighbour(index, IPv4Address(about[1]), about[2].hex(":")))
        return found

    def forwards(self) -> set[Forward]:
        """The forwarding entries of all vxlans."""
        found = set()
        for index, _, about in self._neighbours(socket.AF_BRIDGE):
            if len(about.get(1, b"")) == 4 and len(about.get(2, b"")) == 6:
                found.add(Forward(index, about[2].hex(":"), IPv4Address(about[1])))
        return found

    def _neighbours(self, family: int) -> Iterator[tuple[int, int, dict[int, bytes]]]:
        # The bridge family's dump wants a link's header, not a neighbour's (net/core/rtnetlink.c).
        head = _LINK.pack(family, 0, 0, 0, 0) if family == socket.AF_BRIDGE else _NEIGHBOUR.pack(family, 0, 0, 0, 0)
        for _, body in self._socket.dump(Message(GET_NEIGHBOUR, 0, head)):
            _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
            yield index, state, attributes(body[_NEIGHBOUR.size :])


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    about = attributes(body[_LINK.size :])
    info = attributes(about.get(18, b""))
    kind = info.get(1, b"").rstrip(b"\0").decode()
    data = attributes(info.get(2, b"")) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=about[3].rstrip(b"\0").decode(),
        kind=kind,
        mtu=_number(about.get(4)),
        mac=about.get(1, b"").hex(":"),
        master=_number(about.get(10)),
        up=bool(flags & _UP),
        vni=_number(data.get(1)),
    )


def _parse_route(body: bytes) -> Iterator[Route]:
    _, prefix, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(body)
    if table != _MAIN_TABLE or kind not in (_UNICAST, _UNREACHABLE):
        return
    about = attributes(body[_ROUTE.size :])
    yield Route(
        destination=IPv4Network((about.get(1, bytes(4)), prefix)),
        device=_number(about.get(4)),
        gateway=IPv4Address(about[5]) if 5 in about else None,
        source=IPv4Address(about[7]) if 7 in about else None,
        on_link=bool(flags & _ONLINK),
        protocol=protocol,
    )


def _number(data: bytes | None) -> int:
    return int(struct.unpack("=I", data)[0]) if data else 0
