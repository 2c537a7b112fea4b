"""Kernel: the calls of mount(2), unshare(2) and their kin that make a host, each with a sentence when it fails."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from shoal.errors import ShoalError

NEWNS, NEWCGROUP, NEWUTS = 0x20000, 0x2000000, 0x4000000
NEWIPC, NEWPID, NEWNET = 0x8000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT = 1, 2, 4, 8, 32
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_DETACH = 2
_SET_DEATH_SIGNAL = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(namespaces: int) -> None:
    _check(_libc.unshare(namespaces), "unshare")


def enter(namespace: int, kind: int) -> None:
    """The namespace is a descriptor."""
    _check(_libc.setns(namespace, kind), "setns")


def die_with_parent(signal_number: int) -> None:
    _check(_libc.prctl(_SET_DEATH_SIGNAL, signal_number, 0, 0, 0), "prctl")


def name_host(name: str) -> None:
    _check(_libc.sethostname(name.encode(), len(name.encode())), f"sethostname {name}")


def mount(source: str, target: Path, kind: str | None, flags: int = 0, options: str = "") -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode() if kind else None)
    data = options.encode() or None
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {source} on {target}")


def bind(source: Path, target: Path, *, readonly: bool = False) -> None:
    """Make the source seen at the target, which is made if need be."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(source), target, None, _BIND | _REC)
    if readonly:
        mount("none", target, None, _BIND | REMOUNT | RDONLY)


def keep_mounts_to_ourselves() -> None:
    mount("none", Path("/"), None, _REC | _PRIVATE)


def pivot(root: Path) -> None:
    """Make it our root, and let go of the one before (pivot_root(2), at the end of its notes)."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise ShoalError(f"{what}: {os.strerror(ctypes.get_errno())}")
