"""QEMU's command line for a virtual machine, as a list; nothing is looked at or changed.

It is to run in the machine's folder: QMP's socket is named from there, since its whole path may be too long (unix(7)).

Two network cards: one leads to us alone (QEMU's user network, with a port of the loopback for SSH, and the internet
behind it), the other to the machines beside it. Only what is named is there (-nodefaults).
"""

from __future__ import annotations

import json
from pathlib import Path

from machine.drivers.qemu.options import Acceleration
from machine.drivers.qemu.vm import Folder, Vm, mac_of, segment_of
from machine.drivers.size import MIB

PROGRAM = "qemu-system-x86_64"
ROOT_LABEL = "shoal"
# Where a seed is found in a machine, by udev.
SEED_SERIAL = "seed"
_KERNEL_ARGUMENTS = f"root=LABEL={ROOT_LABEL} rw quiet console=ttyS0"


def arguments(vm: Vm, folder: Folder, *, acceleration: Acceleration, bridge_descriptor: int | None) -> list[str]:
    """`bridge_descriptor` is a tap's, of a machine on a bridge. QEMU stays where it was started: to go into the
    background by itself, it would need what its sandbox takes away."""
    return [
        PROGRAM,
        *("-name", f"guest={_escaped(vm.name)}"),
        *("-no-user-config", "-nodefaults", "-display", "none"),
        *_computer(vm, acceleration),
        *_disk(folder),
        *_links(vm, folder, bridge_descriptor),
        *_boot(vm),
        *("-chardev", f"file,id=console,path={_escaped(str(folder.console))}", "-serial", "chardev:console"),
        *("-qmp", f"unix:{folder.qmp.name},server=on,wait=off"),
        *("-pidfile", str(folder.pidfile)),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]


def _computer(vm: Vm, acceleration: Acceleration) -> list[str]:
    cpu = "host" if acceleration is Acceleration.KVM else "max"
    return [
        *("-machine", "q35", "-accel", acceleration.value, "-cpu", cpu),
        *("-smp", str(vm.options.cpus), "-m", f"{vm.options.memory_bytes // MIB}M"),
        # Without it a new machine may wait for chance before it makes a key.
        *("-device", "virtio-rng-pci"),
    ]


def _disk(folder: Folder) -> list[str]:
    disk = {"driver": "qcow2", "node-name": "disk", "discard": "unmap", "file": _file(folder.disk)}
    seed = {"driver": "raw", "node-name": "seed", "read-only": True, "file": _file(folder.seed)}
    return [
        *("-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *("-blockdev", json.dumps(seed), "-device", f"virtio-blk-pci,drive=seed,serial={SEED_SERIAL}"),
    ]


def _file(path: Path) -> dict[str, object]:
    return {"driver": "file", "filename": str(path)}


def _links(vm: Vm, folder: Folder, bridge_descriptor: int | None) -> list[str]:
    others = f"socket,id=others,mcast={segment_of(folder.path.parent)},localaddr=127.0.0.1"
    if bridge_descriptor is not None:
        others = f"tap,id=others,fd={bridge_descriptor}"
    return [
        *("-netdev", f"user,id=way,ipv6=off,hostfwd=tcp:127.0.0.1:{vm.port}-:22"),
        *("-device", f"virtio-net-pci,netdev=way,romfile=,mac={mac_of(vm.address, of_way=True)}"),
        *("-netdev", others),
        *("-device", f"virtio-net-pci,netdev=others,romfile=,mac={mac_of(vm.address)}"),
    ]


def _boot(vm: Vm) -> list[str]:
    """An image has a boot loader; our own Debian has none, and needs none."""
    if not vm.base:
        return []
    return ["-kernel", f"{vm.base}/kernel", "-initrd", f"{vm.base}/initrd", "-append", _KERNEL_ARGUMENTS]


def _escaped(text: str) -> str:
    """A comma would end the value."""
    return text.replace(",", ",,")
