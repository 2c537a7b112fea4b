"""Segment: one network's part on this host, whatever its driver. Bridges and overlays make segments; sandboxes,
firewall, balance and DNS work on them and know no driver."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """`subnet` is the whole network's, `block` what this host hands addresses out of; `device` is the bridge that
    its containers plug into and that has `gateway`. `tunnel` is an overlay's vxlan device, empty for a bridge
    network. `named`: containers here find each other by name."""

    network_id: str
    name: str
    device: str
    subnet: IPv4Network
    block: IPv4Network
    gateway: IPv4Address
    mtu: int = 1500
    internal: bool = False
    tunnel: str = ""
    named: bool = True

    @property
    def devices(self) -> tuple[str, ...]:
        return (self.device, self.tunnel) if self.tunnel else (self.device,)
