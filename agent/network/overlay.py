"""Overlay networks: routed between hosts over VXLAN, with nothing per container.

Each host leases one block of a network's subnet. On a host a network is a bridge `shb<vni>` for its containers and
a vxlan device `shx<vni>`, whose address and MAC follow from the block's first address, so that every host knows
every other's without being told. Per peer host there are one route (its block, through that address), one fixed
neighbour (that address has that MAC) and one forwarding entry (that MAC is behind that host): no broadcast, no
learning, no gossip, and a container that comes or goes changes nothing on any other host.

Containers get a /32 and send everything to their gateway, so that all of it passes this host's netfilter and a
VIP works between two containers of one host too. What is in the subnet and in no block is unreachable.
The tunnel has no `local` address: the kernel takes the one that the route to the peer says, which is the same and
stays right when the host's address changes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import msgspec

from agent.network import netlink, sysctl
from agent.network.netlink import Forward, Kernel, Link, Neighbour, Route
from agent.network.segment import Segment
from shoal.errors import InvalidArgument
from shoal.model.assignment import NetworkAssignment
from shoal.settings import VXLAN_PORT

_OWNED = re.compile(r"sh[bx][0-9]+")
VXLAN_OVERHEAD_BYTES = 50
_IP_MTU = 14
_UNKNOWN_MTU = 1500


def segment_of(assignment: NetworkAssignment, mtu: int) -> Segment:
    """This host's part of an overlay. `mtu` is the underlay's. Raises InvalidArgument for what cannot be one."""
    network = assignment.network
    name = network.spec.name or network.meta.id
    try:
        subnet, block = IPv4Network(network.subnet), IPv4Network(assignment.block)
    except ValueError as error:
        raise InvalidArgument(f"network {name}: the manager sent an address that is none: {error}") from error
    if not block.subnet_of(subnet) or block.prefixlen > 30 or not 0 < network.vni < 1 << 24:
        raise InvalidArgument(f"network {name}: block {block} of {subnet} with VNI {network.vni} is none")
    return Segment(
        network_id=network.meta.id,
        name=name,
        device=f"shb{network.vni}",
        subnet=subnet,
        block=block,
        gateway=block.network_address + 1,
        mtu=mtu - VXLAN_OVERHEAD_BYTES,
        internal=network.spec.internal,
        tunnel=f"shx{network.vni}",
    )


def reachable_peers(assignment: NetworkAssignment) -> tuple[NetworkAssignment, InvalidArgument | None]:
    """The same without the peers that a tunnel cannot lead to, and what is wrong with the first of those."""
    peers = []
    wrong: InvalidArgument | None = None
    for peer in assignment.peers:
        try:
            IPv4Address(peer.address), IPv4Network(peer.block)
            peers.append(peer)
        except ValueError as error:
            name = assignment.network.spec.name
            wrong = wrong or InvalidArgument(
                f"network {name}: node {peer.node_id} at {peer.address} is not reached: {error}",
                hint="give the node an IPv4 address with --advertise-addr",
            )
    return msgspec.structs.replace(assignment, peers=tuple(peers)), wrong


def routes(assignment: NetworkAssignment, segment: Segment, *, bridge: int, tunnel: int) -> set[Route]:
    """The routes of one overlay, with the indexes of its two devices."""
    found = {Route(segment.block, bridge, source=segment.gateway)}
    if segment.block != segment.subnet:
        found.add(Route(segment.subnet))
    for peer in assignment.peers:
        block = IPv4Network(peer.block)
        found.add(Route(block, tunnel, gateway=block.network_address, on_link=True))
    return found


def neighbours(assignment: NetworkAssignment, tunnel: int) -> set[Neighbour]:
    starts = [IPv4Network(peer.block).network_address for peer in assignment.peers]
    return {Neighbour(tunnel, start, netlink.mac_of(start)) for start in starts}


def forwards(assignment: NetworkAssignment, tunnel: int) -> set[Forward]:
    return {
        Forward(tunnel, netlink.mac_of(IPv4Network(peer.block).network_address), IPv4Address(peer.address))
        for peer in assignment.peers
    }


def underlay_mtu(assignments: Iterable[NetworkAssignment], fallback: int) -> int:
    """The smallest MTU on the way to a peer; `fallback` while there is none that can be reached."""
    found = []
    for address in {peer.address for assignment in assignments for peer in assignment.peers}:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.connect((address, VXLAN_PORT))  # sends nothing, only looks up the route
                found.append(probe.getsockopt(socket.IPPROTO_IP, _IP_MTU))
            except OSError:
                continue
    return min(found, default=fallback)


def converge(kernel: Kernel, assignments: Sequence[NetworkAssignment], segments: Sequence[Segment]) -> None:
    """Make devices, routes, neighbours and forwarding entries exactly those of the overlays given.

    `segments` go with `assignments`, one each. Removal comes first where names collide, last where packets flow.
    """
    links = _devices(kernel, segments)
    wanted_routes: set[Route] = set()
    wanted_neighbours: set[Neighbour] = set()
    wanted_forwards: set[Forward] = set()
    for assignment, segment in zip(assignments, segments, strict=True):
        tunnel = links[segment.tunnel].index
        wanted_routes |= routes(assignment, segment, bridge=links[segment.device].index, tunnel=tunnel)
        wanted_neighbours |= neighbours(assignment, tunnel)
        wanted_forwards |= forwards(assignment, tunnel)
    tunnels = {links[segment.tunnel].index for segment in segments}
    found_routes = {route for route in kernel.routes() if route.protocol == netlink.OURS}
    found_neighbours = {each for each in kernel.neighbours() if each.device in tunnels}
    found_forwards = {each for each in kernel.forwards() if each.device in tunnels}
    # A MAC that moved to another host has two entries until the old one is gone.
    kernel.do(*map(netlink.delete_forward, found_forwards - wanted_forwards))
    kernel.do(
        *map(netlink.add_neighbour, wanted_neighbours - found_neighbours),
        *map(netlink.add_forward, wanted_forwards - found_forwards),
    )
    replaced = {route.destination for route in wanted_routes}
    stale = [route for route in found_routes - wanted_routes if route.destination not in replaced]
    kernel.do(*map(netlink.add_route, wanted_routes - found_routes), *map(netlink.delete_route, stale))
    kernel.do(*map(netlink.delete_neighbour, found_neighbours - wanted_neighbours))


def _devices(kernel: Kernel, segments: Sequence[Segment]) -> dict[str, Link]:
    links = kernel.links()
    wanted = {device for segment in segments for device in segment.devices}
    unwanted = [link for name, link in links.items() if name not in wanted and _OWNED.fullmatch(name)]
    kernel.do(*(netlink.delete_link(link.index) for link in unwanted))
    for segment in segments:
        _device(kernel, links, segment)
    links = kernel.links()
    for segment in segments:
        _address(kernel, links[segment.device].index, segment.gateway)
        _address(kernel, links[segment.tunnel].index, segment.block.network_address)
        for device in segment.devices:
            sysctl.prepare(device)
    return links


def _device(kernel: Kernel, links: dict[str, Link], segment: Segment) -> None:
    macs = {
        segment.device: netlink.mac_of(segment.gateway),
        segment.tunnel: netlink.mac_of(segment.block.network_address),
    }
    for name, mac in macs.items():
        link = links.get(name)
        if link and link.up and (link.mac, link.mtu) == (mac, segment.mtu):
            continue
        if link:
            kernel.do(netlink.change_link(link.index, mac=mac, mtu=segment.mtu))
        elif name == segment.device:
            kernel.do(netlink.bridge(name, mac=mac, mtu=segment.mtu))
        else:
            vni = int(segment.tunnel.removeprefix("shx"))
            kernel.do(netlink.vxlan(name, mac=mac, mtu=segment.mtu, vni=vni, port=VXLAN_PORT))


def _address(kernel: Kernel, index: int, address: IPv4Address) -> None:
    """One /32: a prefix would bring routes for a subnet that is not on this link."""
    wanted = IPv4Interface((address, 32))
    extra = kernel.addresses(index) - {wanted}
    kernel.do(*(netlink.delete_address(index, each) for each in extra), netlink.add_address(index, address, 32))
