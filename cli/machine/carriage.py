"""`machine export` and `machine import`: the machines of one computer on another one as well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cli.command import argument, command, flag
from cli.machine.listing import find_all
from cli.machine.reach import StorageFlags
from machine.parcel import pack, unpack
from shoal.errors import InvalidArgument


@command("[OPTIONS] [NAME...]", examples=["shoal machine export -o machines.json"])
def export(
    storage: StorageFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
    output: Annotated[str, flag("-o", "--output", help="Write to a file, instead of STDOUT")] = "",
) -> None:
    """Write machines' records and host keys, for another computer; keys and passwords are not in it"""
    records = storage.records()
    data = pack(records, find_all(records, names))
    if output:
        Path(output).write_bytes(data)
        return
    sys.stdout.write(data.decode())


@command("[OPTIONS] FILE|-", examples=["shoal machine import machines.json"])
def import_(storage: StorageFlags, file: Annotated[str, argument()]) -> None:
    """Take up machines that were exported on another computer; nothing on them changes"""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from error
    for each in unpack(storage.records(), data):
        print(each.machine.name)
        for identity in each.machine.ssh.identities:
            if not Path(identity).expanduser().exists():
                print(f"{each.machine.name} is reached with the key {identity}, which is not here", file=sys.stderr)
