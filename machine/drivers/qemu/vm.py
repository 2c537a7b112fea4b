"""Vm: what is kept of one virtual machine, in a folder of its own that is whole or absent.

Whether it runs is not kept: the kernel knows (`process`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from pathlib import Path

import msgspec

from machine.drivers.qemu.options import Options
from shoal.errors import Exhausted, ShoalError
from shoal.files import read_optional, write_atomic

# Where we reach them.
LOOPBACK = "127.0.0.1"
# Where machines reach each other that are on no bridge. QEMU's own network, on which each is alone, is 10.0.2.0/24.
SEGMENT = ipaddress.IPv4Network("192.168.213.0/24")


class Vm(msgspec.Struct, frozen=True):
    """`port` of the loopback leads to its sshd. `address` is where the others reach it, with its prefix; `base` is the
    folder of our own Debian that it stands on, empty where it has an image. `host_key` is a fingerprint."""

    name: str
    options: Options
    port: int
    address: str
    base: str
    host_key: str

    @property
    def advertised(self) -> str:
        return str(ipaddress.IPv4Interface(self.address).ip)


class Folder:
    """The files of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def disk(self) -> Path:
        return self.path / "disk.qcow2"

    @property
    def seed(self) -> Path:
        return self.path / "seed"

    @property
    def key(self) -> Path:
        """The private key of whoever may log in; the machine's own is in its seed alone."""
        return self.path / "key"

    @property
    def console(self) -> Path:
        """What it said on its serial line since it was started last."""
        return self.path / "console.log"

    @property
    def complaints(self) -> Path:
        """What QEMU itself said since then."""
        return self.path / "qemu.log"

    @property
    def qmp(self) -> Path:
        return self.path / "qmp"

    @property
    def pidfile(self) -> Path:
        return self.path / "qemu.pid"

    def read(self) -> Vm | None:
        """None where there is no such machine."""
        data = read_optional(self._vm)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=Vm)
        except msgspec.MsgspecError as error:
            raise ShoalError(f"{self._vm} is no record of a virtual machine: {error}") from error

    def save(self, vm: Vm) -> None:
        write_atomic(self._vm, msgspec.json.format(msgspec.json.encode(vm)))

    @property
    def _vm(self) -> Path:
        return self.path / "vm.json"


def free_address(taken: Iterable[str]) -> str:
    """The first of the segment that nobody has; its first is left to this computer. Raises Exhausted."""
    others = set(taken)
    for host in list(SEGMENT.hosts())[1:]:
        address = f"{host}/{SEGMENT.prefixlen}"
        if address not in others:
            return address
    raise Exhausted(f"there are as many virtual machines as {SEGMENT} has addresses", hint="remove some")


def mac_of(address: str, *, of_way: bool = False) -> str:
    """The hardware address that goes with an address: of its link to the others, or of the one that leads to us.
    QEMU's prefix, whose first byte says that nobody sold it."""
    low = ipaddress.IPv4Interface(address).ip.packed[1:]
    return ":".join(["52", "54", "01" if of_way else "00", *(f"{each:02x}" for each in low)])


def segment_of(folder: Path) -> str:
    """Group and port by which all machines in `folder` hear each other, and those of other folders do not."""
    digest = hashlib.sha256(str(folder).encode()).digest()
    return f"239.255.{digest[0]}.{digest[1]}:{20000 + int.from_bytes(digest[2:4]) % 10000}"
