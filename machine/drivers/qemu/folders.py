"""Folders: the folders of all virtual machines, and what they may not have in common: ports and addresses.

A machine's is filled beside its place and renamed; so it is whole or absent, whoever is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from machine.drivers.qemu import disk, keys, seed
from machine.drivers.qemu.options import Options
from machine.drivers.qemu.vm import LOOPBACK, Folder, Vm, free_address
from shoal.errors import Conflict
from shoal.files import write_atomic


class Folders:
    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, name: str) -> Folder:
        return Folder(self._path / name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time chooses ports and addresses, and turns machines on; the kernel gives it back (flock(2))."""
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def make(self, name: str, options: Options, ground: disk.Ground) -> Vm:
        """The new machine, or the one that is there by now. Raises Conflict for an address that another has."""
        with self.locked():
            folder = self.of(name)
            if known := folder.read():
                return known
            self._sweep()
            others = self._all()
            mine = (options.bridge, options.address)
            if options.bridge and mine in [(each.options.bridge, each.address) for each in others]:
                raise Conflict(f"another virtual machine has {options.address} on bridge {options.bridge}")
            login, host = keys.make(), keys.make()
            address = options.address or free_address(each.address for each in others)
            vm = Vm(name, options, self._free_port(), address, ground.base, host.fingerprint)
            fresh = Folder(self._path / f".{name}.new")
            fresh.path.mkdir(mode=0o700)
            seeded = seed.for_debian if ground.base else seed.for_cloud_init
            write_atomic(fresh.seed, seeded(name, address, login=login, host=host))
            write_atomic(fresh.key, login.private.encode())
            disk.make(fresh.disk, ground, size_bytes=options.disk_bytes)
            fresh.save(vm)
            fresh.path.rename(folder.path)
        return vm

    def remove(self, name: str) -> None:
        """Of a machine that is off, by whoever has the lock."""
        self._sweep()
        path = self.of(name).path
        if path.exists():
            path.rename(self._path / f".{name}.gone")
            self._sweep()

    def with_free_port(self, vm: Vm) -> Vm:
        """For whoever has the lock: the machine, with another port if somebody took its own while it was off."""
        if _is_free(vm.port):
            return vm
        moved = msgspec.structs.replace(vm, port=self._free_port())
        self.of(vm.name).save(moved)
        return moved

    def _all(self) -> list[Vm]:
        paths = [path for path in self._path.iterdir() if not path.name.startswith(".")]
        return [vm for path in paths if (vm := Folder(path).read())]

    def _free_port(self) -> int:
        taken = {each.port for each in self._all()}
        while True:
            with socket.create_server((LOOPBACK, 0)) as free:
                port = int(free.getsockname()[1])
            if port not in taken:
                return port

    def _sweep(self) -> None:
        """What was not finished, or not wholly removed; no machine's name begins with a dot."""
        for path in self._path.glob(".*"):
            shutil.rmtree(path)


def _is_free(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True
