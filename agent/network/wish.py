"""What somebody may wish for on a network: an address, names, a MAC. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from agent.network.segment import Segment
from shoal.errors import InvalidArgument
from shoal.model.network import Network, NetworkAttachment


def check_wish(attachment: NetworkAttachment, segment: Segment, network: Network) -> None:
    """Raises InvalidArgument for an address, a name or a MAC that cannot be had there."""
    if attachment.mac and segment.tunnel:
        raise InvalidArgument(
            f"network {segment.name}: a MAC cannot be chosen on an overlay", hint="other hosts know it by the address"
        )
    if attachment.aliases and not segment.named:
        raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
    if attachment.links and not segment.named:
        raise InvalidArgument("links are only supported for user-defined networks")
    if not attachment.address:
        return
    if not segment.named:
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if not network.spec.subnet:
        raise InvalidArgument(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
            hint=f"make network {segment.name} with --subnet",
        )
    if IPv4Address(attachment.address) in (segment.subnet.network_address, segment.subnet.broadcast_address):
        raise InvalidArgument(
            f"network {segment.name}: Address already in use: {attachment.address}",
            hint="the first and the last one of a subnet are nobody's",
        )
    if IPv4Address(attachment.address) not in (segment.block if segment.tunnel else segment.subnet):
        raise InvalidArgument(
            f"Invalid address {attachment.address}: It does not belong to any of this network's subnets",
            hint=f"on this host it gives {segment.block}",
        )
