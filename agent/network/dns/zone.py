"""Zones: the names of one network on this host, and what they say to a question. Pure, standard library only.

`names.py` makes the files from records and endpoints; the resolver reads them. A name is answered with or without
the network's name behind it ("web", "web.backend"). A container that is on several networks finds the names of
all of them: `clients` says which other zones it may look into. What it calls others by links of its own comes first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agent.network.dns import message
from agent.network.dns.message import Query


class Zone(NamedTuple):
    """`names`: lower-case name → addresses; `pointers`: address → name; `clients`: address of a container → gateways
    of its other networks; `links`: address of a container → gateway of the network → alias → name there. `internal`:
    unknown names are nobody's."""

    network: str = ""
    internal: bool = False
    names: dict[str, list[str]] = {}
    pointers: dict[str, str] = {}
    clients: dict[str, list[str]] = {}
    links: dict[str, dict[str, dict[str, str]]] = {}

    def linked(self, links: dict[str, str]) -> Zone:
        """What somebody with these links calls those who are here now."""
        names = {alias: self.names[name] for alias, name in links.items() if name in self.names}
        return Zone(self.network, self.internal, names)


def dump(zone: Zone) -> bytes:
    """The same bytes for the same content, so that an unchanged file is seen as such."""
    return json.dumps(zone._asdict(), sort_keys=True, separators=(",", ":")).encode()


def load(data: bytes) -> Zone:
    """Raises ValueError for what `dump` did not write."""
    try:
        return Zone(**json.loads(data))
    except TypeError as error:
        raise ValueError(f"not a zone: {error}") from error


Shuffle = Callable[[list[bytes]], None]


def answer(zones: Sequence[Zone], query: Query, shuffle: Shuffle, *, limit: int = 0) -> bytes | None:
    """The answer from `zones`, the first that knows counts; None when somebody else must be asked.

    Several addresses come in an order of `shuffle`'s choice.
    """
    for zone in zones:
        records = _records(zone, query)
        if records is not None:
            shuffle(records)
            return message.respond(query, message.NO_ERROR, records, limit=limit)
    if all(zone.internal for zone in zones):
        return message.respond(query, message.NO_SUCH_NAME, limit=limit)
    return None


def _records(zone: Zone, query: Query) -> list[bytes] | None:
    """What `zone` says; an empty list when the name is there but has nothing of this kind."""
    reverse = message.reverse_address(query.name)
    if reverse:
        name = zone.pointers.get(reverse)
        return None if name is None else [message.pointer_record(name)] if query.kind == message.PTR else []
    addresses = zone.names.get(query.name)
    if addresses is None and query.name.endswith("." + zone.network.lower()):
        addresses = zone.names.get(query.name[: -len(zone.network) - 1])
    if addresses is None:
        return None
    return [message.address_record(each) for each in addresses] if query.kind in (message.A, message.ANY) else []
