"""Links: another container of this host under an alias of one's own, as docker had them before networks had names.

Pure: the line for /etc/hosts, and the variables that tell its address, its ports and its own variables. The host's
files are `agent.container.hostfiles`', who the other container is and whether it runs says `launch`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from shoal import ids
from shoal.model.container import Container

_PRIVATE = ("HOME", "PATH")


class Link(msgspec.Struct, frozen=True):
    """`exposed` are "80/tcp", of its image and its own."""

    alias: str
    owner: Container
    address: str
    exposed: tuple[str, ...] = ()


def hosts_line(link: Link) -> str:
    """Docker's: the alias, the short id, the name."""
    names = dict.fromkeys((link.alias, ids.short(link.owner.meta.id), link.owner.name))
    return f"{link.address}\t{' '.join(names)}"


def environment(container_name: str, links: Iterable[Link]) -> list[str]:
    """The variables of all links of a container of this name."""
    return [line for link in links for line in _variables(container_name, link)]


def _variables(container_name: str, link: Link) -> list[str]:
    prefix = re.sub(r"[^A-Z0-9]", "_", link.alias.upper())
    found = [f"{prefix}_NAME=/{container_name}/{link.alias}"]
    ports = sorted(_port(each) for each in link.exposed)
    if ports:
        number, protocol = ports[0]
        found.append(f"{prefix}_PORT={protocol}://{link.address}:{number}")
    for number, protocol in ports:
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found += [
            f"{name}={protocol}://{link.address}:{number}",
            f"{name}_ADDR={link.address}",
            f"{name}_PORT={number}",
            f"{name}_PROTO={protocol}",
        ]
    return found + [f"{prefix}_ENV_{each}" for each in link.owner.env if each.partition("=")[0] not in _PRIVATE]


def exposed(container: Container, image: Sequence[str]) -> tuple[str, ...]:
    """What can be reached of a container whose image exposes `image`."""
    own = [f"{each.target}/{each.protocol.name.lower()}" for each in container.ports]
    return tuple(dict.fromkeys((*image, *container.spec.exposed_ports, *own)))


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number), protocol or "tcp"
