"""Parcel: machines' records on their way to another computer, with the host keys that this one knows them by.

No key and no password is in it: whoever takes it up gets in with what is theirs.
"""

from __future__ import annotations

import msgspec

from machine.record import Record, Records
from shoal.errors import Conflict, InvalidArgument
from shoal.files import read_optional, write_atomic

FORMAT = 1


class Parcel(msgspec.Struct, frozen=True):
    """`format` is refused where it is another."""

    machines: tuple[Record, ...]
    known_hosts: tuple[str, ...]
    format: int = FORMAT


def pack(records: Records, chosen: list[Record]) -> bytes:
    """As a text that a person can read."""
    lines = (read_optional(records.known_hosts) or b"").decode().splitlines()
    settled = tuple(msgspec.structs.replace(each, doing="", failed="") for each in chosen)
    return msgspec.json.format(msgspec.json.encode(Parcel(settled, tuple(lines)))) + b"\n"


def unpack(records: Records, data: bytes) -> list[Record]:
    """Record all of it, or nothing. Raises Conflict for a machine of another host that has one of the names."""
    try:
        parcel = msgspec.json.decode(data, type=Parcel)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"this is no export of machines: {error}") from error
    if parcel.format != FORMAT:
        raise InvalidArgument(f"the export is of format {parcel.format}", hint="use a newer version of shoal")
    for each in parcel.machines:
        known = records.find(each.machine.name)
        if known and known.machine.address != each.machine.address:
            raise Conflict(
                f"machine {each.machine.name} exists already, at {known.machine.address}",
                hint=f"forget it with 'shoal machine rm {each.machine.name}', or import into another --storage-path",
            )
    lines = (read_optional(records.known_hosts) or b"").decode().splitlines()
    fresh = [line for line in parcel.known_hosts if line not in lines]
    write_atomic(records.known_hosts, "".join(f"{line}\n" for line in [*lines, *fresh]).encode())
    for each in parcel.machines:
        records.save(each)
    return list(parcel.machines)
