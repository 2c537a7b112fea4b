"""The text of our one nftables table, `ip shoal`. Pure; `table.py` applies it, `balance.py` writes the part for
services.

What the chains do, in the order a packet meets them:
- `guard` keeps containers from the host's loopback, which route_localnet would open to them.
- `prerouting` and `output` choose another destination: a service's VIP for a backend (only from inside its
  network), a published port of any local address for the container, a mesh port for a backend.
- `forward` lets in what belongs to a connection, what was published, and what stays in one network; nothing else
  reaches a container from outside its network.
- `postrouting` hides a container behind the host when it talks to the world, behind the tunnel's address when a
  mesh request goes to another host (so that the answer comes back the same way), and behind the gateway when it
  talks to itself through its own service or port.
- `redirects` stops ICMP redirects, by which a container would learn to go around the host, where VIPs are unknown.

A host may have a firewall that forwards nothing: Docker and ufw leave iptables' FORWARD chain with the policy drop,
which no accept of ours overrules. `admission` lets our devices through there; what may reach a container is decided
in `forward` all the same.

Published ports are elements of maps, so that a container's start adds one element and no rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agent.network import balance
from agent.network.balance import TABLE, Balance
from agent.network.segment import Segment
from shoal.model.network import Port


class Published(msgspec.Struct, frozen=True):
    """A port of the host that leads to `address`."""

    port: Port
    address: str


def ruleset(segments: Sequence[Segment], published: Iterable[Published], services: Balance) -> str:
    """Everything, replacing what is there in one transaction."""
    return (
        f"table {TABLE}\n"
        f"delete table {TABLE}\n"
        f"table {TABLE} {{\n"
        f"{_sets(segments)}"
        f"{balance.chains(services)}"
        f"{_base(segments)}"
        "}\n"
        f"{publish(published)}"
        f"{balance.elements(services)}"
    )


def publish(published: Iterable[Published]) -> str:
    """Add ports to a table that is there."""
    return "".join(f"add element {TABLE} {_element(each)}\n" for each in published)


def unpublish(published: Iterable[Published]) -> str:
    """Remove ports that are there."""
    return "".join(f"delete element {TABLE} {_element(each)}\n" for each in published)


# Where iptables filters what passes this host, and our chain there. nft's word for a name's beginning is "*".
FORWARD = "ip filter FORWARD"
_ADMITTED = "SHOAL-FORWARD"
_DEVICES = ("shoal0", "shl*", "shb*", "shx*")
_WAYS = ("iifname", "oifname")


def admission(forward: str) -> str:
    """The commands that make iptables' FORWARD chain, which `nft list chain` printed as `forward`, let through what
    comes from our devices or goes to them; none where it does already."""
    if f"jump {_ADMITTED}" in forward:
        return ""
    rules = [f'add rule ip filter {_ADMITTED} {way} "{device}" accept' for device in _DEVICES for way in _WAYS]
    chain = f"ip filter {_ADMITTED}"
    return "\n".join(
        [f"add chain {chain}", f"flush chain {chain}", *rules, f"insert rule {FORWARD} jump {_ADMITTED}", ""]
    )


def _element(published: Published) -> str:
    port = published.port
    key = f"{port.protocol.name.lower()} . {port.published}"
    value = f"{published.address} . {port.target}"
    if port.host_address:
        return f"published_at {{ {port.host_address} . {key} : {value} }}"
    return f"published {{ {key} : {value} }}"


def _sets(segments: Sequence[Segment]) -> str:
    ours = [f'"{device}"' for segment in segments for device in segment.devices]
    internal = [f'"{device}"' for segment in segments if segment.internal for device in segment.devices]
    same = [f'"{enter}" . "{leave}"' for segment in segments for enter in segment.devices for leave in segment.devices]
    named = [segment for segment in segments if segment.named]
    gateways = [str(segment.gateway) for segment in named]
    resolvers = [f'"{segment.device}" . {segment.gateway}' for segment in named]
    return (
        _set("ours", "ifname", ours)
        + _set("internal", "ifname", internal)
        + _set("same", "ifname . ifname", same)
        + _set("gateways", "ipv4_addr", gateways)
        + _set("resolvers", "ifname . ipv4_addr", resolvers)
        + "  set hairpin { type ipv4_addr . ipv4_addr; }\n"
        + "  map published { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
        + "  map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }\n"
        + "  map mesh { type inet_proto . inet_service : verdict; }\n"
        + "  map vips { type ifname . ipv4_addr : verdict; }\n"
    )


def _set(name: str, kind: str, elements: Sequence[str]) -> str:
    content = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  set {name} {{ type {kind};{content} }}\n"


def _base(segments: Sequence[Segment]) -> str:
    hide = "".join(f"    {rule}\n" for segment in segments for rule in _masquerade(segment))
    return f"""\
  chain local {{
    iifname . ip daddr @resolvers th dport 53 return
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
    meta l4proto . th dport vmap @mesh
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname @ours ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname . ip daddr vmap @vips
    meta l4proto {{ tcp, udp }} fib daddr type local jump local
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "lo" ip daddr @gateways meta l4proto {{ tcp, udp }} th dport 53 iifname . ip daddr != @resolvers drop
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    meta l4proto {{ tcp, udp }} fib daddr type local jump local
  }}
  chain redirects {{
    type filter hook output priority filter; policy accept;
    icmp type redirect oifname @ours drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname . oifname @same accept
    iifname @internal reject with icmp admin-prohibited
    oifname @internal reject with icmp admin-prohibited
    ct status dnat accept
    oifname @ours reject with icmp admin-prohibited
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 127.0.0.0/8 oifname @ours masquerade
    ct status dnat ip saddr . ip daddr @hairpin masquerade
{hide}  }}
"""


def _masquerade(segment: Segment) -> list[str]:
    if segment.internal:
        return []
    subnet = segment.subnet
    if segment.tunnel:
        return [
            f'ip saddr {subnet} oifname != {{ "{segment.device}", "{segment.tunnel}" }} masquerade',
            f'ip saddr != {subnet} oifname "{segment.tunnel}" masquerade',
        ]
    return [
        f'ip saddr {subnet} oifname != "{segment.device}" masquerade',
        f"ct status dnat ip saddr {subnet} ip daddr {subnet} masquerade",
    ]
