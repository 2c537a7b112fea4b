"""Sandbox: a container's own network namespace with its interfaces, eth0 first.

The agent makes the namespace and holds it by a descriptor until the container's first process is in it. From then
on the kernel owns it: namespace and veths vanish with the last process, whoever was killed, and nothing here ever
deletes a link (that costs 20 ms; closing costs nothing). One message makes a veth with its end already inside, one
send does the rest. A few namespaces for the default network are kept ready (`Sandboxes.refill`).
Blocking; for one thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from agent.kernel import netns
from agent.kernel.netlink import Message
from agent.network import netlink
from agent.network.netlink import Kernel, Route
from agent.network.segment import Segment

_LOOPBACK_INDEX = 1
READY = 6
FEW = 3  # fewer are made up for, several by one thread
_EVERYWHERE = IPv4Network("0.0.0.0/0")


class Sandbox:
    """A namespace with one interface per segment, not yet configured."""

    def __init__(self, namespace: netns.Namespace, segments: tuple[Segment, ...]) -> None:
        self._namespace = namespace
        self._inside = Kernel(namespace.socket)
        self._indexes = [self._inside.index(_name(number)) for number in range(len(segments))]
        self.segments = segments

    @property
    def path(self) -> str:
        """By which a runtime on this host enters the namespace, while this is open."""
        return f"/proc/{os.getpid()}/fd/{self._namespace.fd}"

    def configure(self, addresses: Sequence[IPv4Address], macs: Sequence[str] = ()) -> None:
        """Bring everything up with these addresses, one per segment; an empty MAC is the address's."""
        self._inside.do(*configuration(self.segments, self._indexes, addresses, macs))

    def close(self) -> None:
        self._namespace.close()


class Sandboxes:
    """Makes sandboxes. `chance` names the veths, whose names nobody needs to know."""

    def __init__(self, kernel: Kernel, chance: Callable[[], float]) -> None:
        self._kernel = kernel
        self._chance = chance
        self._ready: list[Sandbox] = []

    def make(self, segments: tuple[Segment, ...], namespace: netns.Namespace | None = None) -> Sandbox:
        """A ready one where there is one, else a new one; of `namespace`, which is then the sandbox's, where there is
        one. Nothing stays behind on failure."""
        for sandbox in self._ready:
            if namespace is None and sandbox.segments == segments:
                self._ready.remove(sandbox)
                return sandbox
        [sandbox] = self._cabled([namespace] if namespace is not None else netns.create(), segments)
        return sandbox

    @property
    def short(self) -> bool:
        """Whether `refill` has something to do."""
        return len(self._ready) < FEW

    def refill(self, segments: tuple[Segment, ...]) -> None:
        """Make as many ready for `segments` as there should be; those for other segments are let go."""
        for sandbox in [each for each in self._ready if each.segments != segments]:
            self._ready.remove(sandbox)
            sandbox.close()
        missing = READY - len(self._ready)
        if missing:
            self._ready += self._cabled(netns.create(missing), segments)

    def close(self) -> None:
        for sandbox in self._ready:
            sandbox.close()
        self._ready.clear()

    def _cabled(self, namespaces: Sequence[netns.Namespace], segments: tuple[Segment, ...]) -> list[Sandbox]:
        """Of these namespaces, which are the sandboxes' from now on, or closed on failure. One send for all cables."""
        try:
            cables = [(segment, _name(number)) for number, segment in enumerate(segments)]
            self._cable([(segment, namespace, peer) for namespace in namespaces for segment, peer in cables])
            return [Sandbox(namespace, segments) for namespace in namespaces]
        except BaseException:
            for namespace in namespaces:
                namespace.close()
            raise

    def _cable(self, cables: Sequence[tuple[Segment, netns.Namespace, str]]) -> None:
        """Each a veth from the segment into the namespace, where its end has the name that is given."""
        masters = {segment.device: socket.if_nametoindex(segment.device) for segment, _, _ in cables}
        messages: list[Message] = []
        for segment, namespace, peer in cables:
            name = f"shv{int(self._chance() * (1 << 48)):012x}"
            master, mtu = masters[segment.device], segment.mtu
            messages += (
                netlink.veth(name, master=master, mtu=mtu, peer=peer, peer_namespace=namespace.fd),
                netlink.hairpin(name),
                netlink.unaddressed(name=name),
            )
        self._kernel.do(*messages)

    def extend(self, path: str, segment: Segment, address: IPv4Address, mac: str) -> None:
        """One more interface in the namespace at `path`, all configured; its default route where there is none."""
        with _inside(path) as (namespace, inside):
            links = inside.links()
            name = next(each for each in map(_name, range(len(links) + 1)) if each not in links)
            self._cable([(segment, namespace, name)])
            index = inside.index(name)
            try:
                messages = interface(
                    segment, index, address, mac=mac, outward=not segment.internal and not _has_default(inside)
                )
                inside.do(*messages)
            except BaseException:
                inside.do(netlink.delete_link(index))
                raise

    def shorten(self, path: str, address: IPv4Address, rest: Sequence[tuple[Segment, IPv4Address]]) -> None:
        """Take the interface with this address out of the namespace at `path`; of the `rest` the first that leads
        outside has the default route then. Idempotent."""
        with _inside(path) as (_, inside):
            places = {each.ip: link.index for link in inside.links().values() for each in inside.addresses(link.index)}
            if address in places:
                inside.do(netlink.delete_link(places[address]))
            outward = next(((segment, own) for segment, own in rest if not segment.internal and own in places), None)
            if outward is not None and not _has_default(inside):
                routes = inside_routes(outward[0], places[outward[1]], outward=True)
                inside.do(*map(netlink.add_route, routes))


@contextlib.contextmanager
def _inside(path: str) -> Iterator[tuple[netns.Namespace, Kernel]]:
    namespace = netns.enter(path)
    try:
        yield namespace, Kernel(namespace.socket)
    finally:
        namespace.close()


def _has_default(inside: Kernel) -> bool:
    return any(route.destination == _EVERYWHERE for route in inside.routes())


def _name(number: int) -> str:
    return f"eth{number}"


def configuration(
    segments: Sequence[Segment],
    indexes: Sequence[int],
    addresses: Sequence[IPv4Address],
    macs: Sequence[str] = (),
) -> list[Message]:
    """The messages that configure the inside: lo, then each interface with address and routes.

    The default route goes through the first network that leads outside.
    """
    outward = next((number for number, segment in enumerate(segments) if not segment.internal), None)
    messages = [netlink.link_up(_LOOPBACK_INDEX)]
    for number, (segment, index, address) in enumerate(zip(segments, indexes, addresses, strict=True)):
        mac = macs[number] if macs else ""
        messages += interface(segment, index, address, mac=mac, outward=number == outward)
    return messages


def interface(segment: Segment, index: int, address: IPv4Address, *, mac: str, outward: bool) -> list[Message]:
    """The messages that configure one interface."""
    return [
        netlink.unaddressed(index=index),
        netlink.link_up(index, mac=mac or netlink.mac_of(address)),
        netlink.add_address(index, address, prefix_of(segment)),
        *map(netlink.add_route, inside_routes(segment, index, outward=outward)),
    ]


def prefix_of(segment: Segment) -> int:
    """In an overlay nobody is a neighbour but the gateway."""
    return 32 if segment.tunnel else segment.subnet.prefixlen


def inside_routes(segment: Segment, index: int, *, outward: bool) -> list[Route]:
    """What the container reaches through this interface, in the order in which the kernel accepts it."""
    routes = []
    if segment.tunnel:
        routes.append(Route(IPv4Network(segment.gateway), index))
        routes.append(Route(segment.subnet, index, gateway=segment.gateway))
    if outward:
        routes.append(Route(_EVERYWHERE, index, gateway=segment.gateway))
    return routes
