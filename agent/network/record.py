"""What this host gave to its containers, one small file each, written before anything is done.

So an agent that was killed at any moment finds every address and port that may be in use. The files are in the
run directory: after a reboot no container runs and nothing is taken.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from shoal.errors import InvalidArgument
from shoal.files import read_optional, sweep_unfinished, write_atomic
from shoal.model.assignment import NetworkAssignment
from shoal.model.network import Endpoint, Port


class Attached(msgspec.Struct, frozen=True):
    """One interface: where it is, and by which names others on that network find it. An empty `mac` is the one that
    goes with the address. `links`: what it alone calls others there, alias → name."""

    network_id: str
    network_name: str
    address: str
    names: tuple[str, ...] = ()
    mac: str = ""
    links: dict[str, str] = {}


class Record(msgspec.Struct, frozen=True):
    """`reached` is the address that its ports lead to."""

    container_id: str
    name: str = ""
    attached: tuple[Attached, ...] = ()
    ports: tuple[Port, ...] = ()
    reached: str = ""


class Wish(msgspec.Struct, frozen=True):
    """What the cluster last asked for."""

    networks: tuple[NetworkAssignment, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


class Records:
    """The files under `folder`. Blocking, but on memory only."""

    def __init__(self, folder: Path) -> None:
        self._containers = folder / "containers"
        self._wish = folder / "wish.json"

    def load(self) -> list[Record]:
        """A file that cannot be read was not written by us, or by another version: it is removed."""
        sweep_unfinished(self._containers)
        sweep_unfinished(self._wish.parent)
        found = []
        for path in sorted(self._containers.glob("*.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
            except msgspec.MsgspecError:
                path.unlink(missing_ok=True)
            else:
                found.append(record)
        return found

    def save(self, record: Record) -> None:
        write_atomic(self._path(record.container_id), msgspec.json.encode(record), durable=False)

    def remove(self, container_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(container_id))  # noqa: PTH108 - a hot path

    def load_wish(self) -> Wish:
        data = read_optional(self._wish)
        try:
            return msgspec.json.decode(data, type=Wish) if data else Wish()
        except msgspec.MsgspecError:
            return Wish()  # of another version: the cluster says it again

    def save_wish(self, wish: Wish) -> None:
        write_atomic(self._wish, msgspec.json.encode(wish), durable=False)

    def _path(self, container_id: str) -> str:
        if not container_id.isalnum():
            raise InvalidArgument(f"container id {container_id!r} is none")
        return f"{self._containers}/{container_id}.json"
