"""Bridge networks: those of this host alone. "bridge" is the default one, on device shoal0; users make more.

Which networks there are is on disk under the data directory, one file each, subnet included, so that a container's
address range outlives a reboot. `Bridges` keeps those files and the devices; addresses and firewall are others'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError
from pathlib import Path

import msgspec

from agent.network import ipam, netlink, sysctl
from agent.network.netlink import Kernel
from agent.network.segment import Segment
from shoal.codec import pack, unpack
from shoal.errors import Conflict, InvalidArgument, PermissionDenied, Unsupported
from shoal.files import sweep_unfinished, write_atomic
from shoal.ids import new_local_id, short
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkScope, NetworkSpec
from shoal.names import check_name

DEFAULT = "bridge"
PREDEFINED = {DEFAULT: "bridge", "host": "host", "none": "null"}
DEFAULT_DEVICE = "shoal0"
_OWNED = re.compile(r"shl[0-9a-z]{12}")
_LARGEST_MTU = 1500  # of those that nobody asked for
_SMALLEST_MTU, _ANY_MTU = 68, 65535  # RFC 791, and what the kernel's bridges take


class Bridges:
    """The networks in `folder`, by id. `now_ns` dates new ones."""

    def __init__(self, folder: Path, now_ns: Callable[[], int]) -> None:
        self._folder = folder
        self._now_ns = now_ns
        self._mtu = _LARGEST_MTU
        self._networks: dict[str, Network] = {}

    @property
    def networks(self) -> Mapping[str, Network]:
        """Never changed, only replaced: other threads may look through it."""
        return self._networks

    def load(self, kernel: Kernel) -> None:
        """Read what is there and make what must be: the three predefined networks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep_unfinished(self._folder)
        for path in sorted(self._folder.glob("*.network")):
            network = unpack(Network, path.read_bytes())
            self._networks = {**self._networks, network.meta.id: network}
        self._mtu = outward_mtu(kernel)
        names = {network.spec.name for network in self.networks.values()}
        for name, driver in PREDEFINED.items():
            if name not in names:
                self._add(NetworkSpec(name=name, driver=driver), kernel, ())

    def create(self, spec: NetworkSpec, kernel: Kernel, in_use: Iterable[IPv4Network]) -> Network:
        """A new bridge network, recorded; `ensure` makes its device. `in_use`: subnets of the cluster's networks.

        Raises Conflict for a name or subnet that is taken.
        """
        if spec.name in PREDEFINED:
            raise PermissionDenied(f"operation is not permitted on predefined {spec.name} network")
        check_name(spec.name, "network")
        if spec.driver not in ("", "bridge"):
            raise Unsupported(
                f"network {spec.name}: a host of its own has no driver {spec.driver}",
                hint="use bridge, or make an overlay network through a manager",
            )
        if spec.mtu and not _SMALLEST_MTU <= spec.mtu <= _ANY_MTU:
            raise InvalidArgument(f"network {spec.name}: an MTU is from {_SMALLEST_MTU} to {_ANY_MTU}, not {spec.mtu}")
        if any(network.spec.name == spec.name for network in self.networks.values()):
            raise Conflict(f"network with name {spec.name} already exists")
        return self._add(msgspec.structs.replace(spec, driver="bridge"), kernel, in_use)

    def _add(self, spec: NetworkSpec, kernel: Kernel, in_use: Iterable[IPv4Network]) -> Network:
        subnet = self._subnet(spec, kernel, in_use) if spec.driver == "bridge" else None
        now = self._now_ns()
        network = Network(
            meta=Meta(id=new_local_id(), created_at_ns=now, updated_at_ns=now),
            spec=spec,
            scope=NetworkScope.LOCAL,
            subnet=str(subnet or ""),
            gateway=str(_gateway(spec, subnet)) if subnet else "",
        )
        write_atomic(self._path(network), pack(network))
        self._networks = {**self._networks, network.meta.id: network}
        return network

    def _subnet(self, spec: NetworkSpec, kernel: Kernel, in_use: Iterable[IPv4Network]) -> IPv4Network:
        own = {IPv4Network(network.subnet): network.spec.name for network in self.networks.values() if network.subnet}
        used = [*own, *in_use]
        if not spec.subnet:
            return ipam.free_subnet([*used, *(route.destination for route in kernel.routes())])
        try:
            subnet = IPv4Network(spec.subnet)
        except (AddressValueError, NetmaskValueError, ValueError) as error:
            raise InvalidArgument(
                f"network {spec.name}: invalid subnet {spec.subnet}: {error}", hint="write it as 10.1.0.0/16"
            ) from error
        if subnet.prefixlen > 29:
            raise InvalidArgument(f"network {spec.name}: subnet {subnet} has no room for containers")
        for other in used:
            if subnet.overlaps(other):
                raise Conflict(
                    f"network {spec.name}: Pool overlaps with other one on this address space: "
                    f"{subnet} with {own.get(other, 'an overlay network')} ({other})",
                    hint="choose another with --subnet",
                )
        return subnet

    def remove(self, network: Network, kernel: Kernel) -> None:
        """Forget `network` and its device. Raises PermissionDenied for a predefined one."""
        if network.spec.name in PREDEFINED:
            raise PermissionDenied(f"{network.spec.name} is a pre-defined network and cannot be removed")
        self._networks = {key: each for key, each in self._networks.items() if key != network.meta.id}
        self._path(network).unlink(missing_ok=True)
        self.ensure(kernel)

    def shown(self) -> list[Network]:
        """With what they are on this host."""
        return [
            msgspec.structs.replace(network, device=_device(network), mtu=self._mtu_of(network))
            if network.subnet
            else network
            for network in self.networks.values()
        ]

    def segments(self) -> list[Segment]:
        return [self._segment(network) for network in self.networks.values() if network.subnet]

    def ensure(self, kernel: Kernel) -> None:
        """Every bridge is there, with its address and settings; devices of networks that are gone are not."""
        links = kernel.links()
        wanted = {segment.device: segment for segment in self.segments()}
        for name, link in links.items():
            if name not in wanted and _OWNED.fullmatch(name):
                kernel.do(netlink.delete_link(link.index))
        for segment in wanted.values():
            if segment.device not in links:
                kernel.do(netlink.bridge(segment.device, mac=netlink.mac_of(segment.gateway), mtu=segment.mtu))
        links = kernel.links()
        for segment in wanted.values():
            index = links[segment.device].index
            address = IPv4Interface((segment.gateway, segment.subnet.prefixlen))
            extra = kernel.addresses(index) - {address}
            kernel.do(netlink.link_up(index), *(netlink.delete_address(index, each) for each in extra))
            kernel.do(netlink.add_address(index, segment.gateway, segment.subnet.prefixlen))
            sysctl.prepare(segment.device)

    def _segment(self, network: Network) -> Segment:
        default = network.spec.name == DEFAULT
        subnet = IPv4Network(network.subnet)
        return Segment(
            network_id=network.meta.id,
            name=network.spec.name,
            device=_device(network),
            subnet=subnet,
            block=IPv4Network(network.spec.ip_range) if network.spec.ip_range else subnet,
            gateway=IPv4Address(network.gateway),
            mtu=self._mtu_of(network),
            internal=network.spec.internal,
            named=not default,
        )

    def _mtu_of(self, network: Network) -> int:
        return network.spec.mtu or self._mtu

    def _path(self, network: Network) -> Path:
        return self._folder / f"{network.meta.id}.network"


def _device(network: Network) -> str:
    return DEFAULT_DEVICE if network.spec.name == DEFAULT else f"shl{short(network.meta.id)}"


def _gateway(spec: NetworkSpec, subnet: IPv4Network) -> IPv4Address:
    """The address of the host on the network. Raises InvalidArgument where it, or the range, is not of the subnet."""
    try:
        gateway = IPv4Address(spec.gateway) if spec.gateway else subnet.network_address + 1
        block = IPv4Network(spec.ip_range) if spec.ip_range else subnet
    except ValueError as error:
        raise InvalidArgument(
            f"network {spec.name}: {error}", hint="an address, and a range such as 10.1.2.0/24"
        ) from error
    if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArgument(f"network {spec.name}: no matching subnet for gateway {gateway}")
    if not block.subnet_of(subnet) or block.prefixlen > 30:
        raise InvalidArgument(f"network {spec.name}: no matching subnet for range {block}")
    return gateway


def outward_mtu(kernel: Kernel) -> int:
    """The MTU towards the outside, at most Ethernet's: a larger packet of a container would only be cut there."""
    outward = {route.device for route in kernel.routes() if route.destination.prefixlen == 0}
    found = [link.mtu for link in kernel.links().values() if link.index in outward and link.mtu]
    return min([_LARGEST_MTU, *found])
