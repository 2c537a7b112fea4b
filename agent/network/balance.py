"""Services in the firewall: VIPs and the mesh as chains that pick a backend by turns. Pure text.

One chain per VIP and per published port, found through a verdict map, so that a changed set of backends is one
small transaction however many services there are. An open connection keeps its backend (conntrack); only new ones
see the change. A VIP counts only for packets from its own network; a mesh port on every local address.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address

import msgspec

from agent.network.segment import Segment
from shoal.errors import InvalidArgument
from shoal.model.network import Endpoint, Port, PortProtocol, PublishMode

TABLE = "ip shoal"


class Entry(msgspec.Struct, frozen=True):
    """One key of a verdict map and the chain that it leads to."""

    map: str
    key: str
    chain: str
    rule: str


class Balance(msgspec.Struct, frozen=True):
    """`entries` by chain. `hairpin`: local backends, which may meet themselves behind their own VIP."""

    entries: dict[str, Entry] = {}
    hairpin: frozenset[IPv4Address] = frozenset()


def mesh_ports(endpoints: Iterable[Endpoint]) -> frozenset[tuple[PortProtocol, int]]:
    """What the services publish on every host, whether anybody answers there or not."""
    return frozenset(
        (port.protocol, port.published)
        for endpoint in endpoints
        for port in endpoint.ports
        if port.mode is PublishMode.INGRESS
    )


def addresses(endpoints: Iterable[Endpoint]) -> frozenset[IPv4Address]:
    """All backends' addresses. Raises InvalidArgument for one that is none, or such a VIP: what has passed here may
    stand in a ruleset."""
    found: set[IPv4Address] = set()
    for endpoint in endpoints:
        found.update(_answering(endpoint))
        if endpoint.address:
            _parsed(endpoint.address, endpoint)
    return frozenset(found)


def balance_of(endpoints: Iterable[Endpoint], segments: Sequence[Segment], ingress: Iterable[str] = ()) -> Balance:
    """What this host balances: endpoints on networks that it has a part of and that somebody answers on.

    A port that several endpoints publish goes to the one on a network in `ingress`, then to the lowest network id.
    """
    parts = {segment.network_id: segment for segment in segments}
    favoured = frozenset(ingress)
    entries: dict[str, Entry] = {}
    hairpin: set[IPv4Address] = set()
    order = sorted(endpoints, key=lambda each: (each.network_id not in favoured, each.network_id, each.service_id))
    for endpoint in order:
        segment = parts.get(endpoint.network_id)
        answering = _answering(endpoint)
        if segment is None or not answering:
            continue
        hairpin.update(address for address in answering if address in segment.block)
        found = [_mesh(port, answering) for port in endpoint.ports if port.mode is PublishMode.INGRESS]
        if endpoint.address:
            found.append(_vip(_parsed(endpoint.address, endpoint), segment, answering))
        for entry in found:
            entries.setdefault(entry.chain, entry)
    return Balance(entries=entries, hairpin=frozenset(hairpin))


def chains(balance: Balance) -> str:
    """The chains, as part of a table's definition."""
    return "".join(f"  chain {entry.chain} {{\n    {entry.rule}\n  }}\n" for entry in balance.entries.values())


def elements(balance: Balance) -> str:
    """The elements that lead to the chains, as commands."""
    return "".join(map(_add_element, balance.entries.values())) + _hairpin("add", balance.hairpin)


def delta(old: Balance, new: Balance) -> str:
    """Commands that turn the table from `old` to `new`; empty when nothing differs."""
    lines = [_hairpin("delete", old.hairpin - new.hairpin), _hairpin("add", new.hairpin - old.hairpin)]
    lines.extend(_remove(entry) for chain, entry in old.entries.items() if chain not in new.entries)
    lines.extend(_change(old.entries, entry) for entry in new.entries.values())
    return "".join(lines)


def _change(old: Mapping[str, Entry], entry: Entry) -> str:
    before = old.get(entry.chain)
    if before == entry:
        return ""
    rule = f"add rule {TABLE} {entry.chain} {entry.rule}\n"
    if before is None:
        return f"add chain {TABLE} {entry.chain}\n{rule}{_add_element(entry)}"
    return f"flush chain {TABLE} {entry.chain}\n{rule}"


def _remove(entry: Entry) -> str:
    return (
        f"delete element {TABLE} {entry.map} {{ {entry.key} }}\n"
        f"flush chain {TABLE} {entry.chain}\n"
        f"delete chain {TABLE} {entry.chain}\n"
    )


def _add_element(entry: Entry) -> str:
    return f"add element {TABLE} {entry.map} {{ {entry.key} : goto {entry.chain} }}\n"


def _hairpin(verb: str, addresses: Iterable[IPv4Address]) -> str:
    pairs = ", ".join(f"{address} . {address}" for address in sorted(addresses))
    return f"{verb} element {TABLE} hairpin {{ {pairs} }}\n" if pairs else ""


def _answering(endpoint: Endpoint) -> list[IPv4Address]:
    """In an order that every host and every restart agrees on, each once."""
    found = {backend.address: backend for backend in endpoint.backends if backend.address}
    order = sorted(found.values(), key=lambda each: (each.slot, each.task_id, each.address))
    return [_parsed(backend.address, endpoint) for backend in order]


def _parsed(address: str, endpoint: Endpoint) -> IPv4Address:
    try:
        return IPv4Address(address)
    except ValueError as error:
        raise InvalidArgument(f"service {endpoint.service_name}: the manager sent address {address!r}") from error


def _vip(vip: IPv4Address, segment: Segment, addresses: Sequence[IPv4Address]) -> Entry:
    choices = ", ".join(f"{number} : {address}" for number, address in enumerate(addresses))
    target = f"numgen inc mod {len(addresses)} map {{ {choices} }}" if len(addresses) > 1 else str(addresses[0])
    return Entry(
        map="vips",
        key=f'"{segment.device}" . {vip}',
        chain=f"vip-{segment.device}-{vip}",
        rule=f"dnat ip to {target}",
    )


def _mesh(port: Port, addresses: Sequence[IPv4Address]) -> Entry:
    protocol = port.protocol.name.lower()
    choices = ", ".join(f"{number} : {address} . {port.target}" for number, address in enumerate(addresses))
    target = f"ip addr . port to numgen inc mod {len(addresses)} map {{ {choices} }}"
    if len(addresses) == 1:
        target = f"ip to {addresses[0]}:{port.target}"
    return Entry(
        map="mesh",
        key=f"{protocol} . {port.published}",
        chain=f"mesh-{protocol}-{port.published}",
        rule=f"meta l4proto {protocol} dnat {target}",
    )
