"""Tree: the root file system of a Debian with the packages that somebody wants, made once and kept by their names.

Hosts inside this machine stand on one, and a virtual machine's disk is filled from one. mmdebstrap makes it, from the
mirror that apt uses. Only the standard library and the error tree: `deploy/lab` runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from shoal.errors import PermissionDenied, ShoalError, Unsupported

SUITE = "bookworm"
# What a host must have to be logged in at and to become a node.
NODE = (
    "dbus", "iproute2", "kmod", "nftables", "openssh-server", "procps", "python3", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
# Read by people, and as large as all the rest.
_UNREAD = ("doc", "info", "locale", "man")
# Devices are their maker's who boots it, and every host makes a key of its own.
_OWN = ("./dev/*", "./etc/ssh/ssh_host_*")


def obtain(packages: Iterable[str], cache: Path, *, tell: Callable[[str], None]) -> Path:
    """The folder of the tree with these packages, from `cache` or made anew: that takes minutes, and `tell` hears of
    it. It is shared: nothing may be changed in it. Raises ShoalError with what Debian's tools said."""
    wanted = ",".join(sorted(set(packages)))
    tree = cache / f"{SUITE}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    if tree.exists():
        return tree
    if os.geteuid() != 0:
        raise PermissionDenied(f"to make {tree}, which belongs to root, one must be root", hint="use sudo")
    if shutil.which("mmdebstrap") is None:
        raise Unsupported("there is no mmdebstrap, which makes a Debian", hint="apt-get install mmdebstrap")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{tree.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            tell(f"making a Debian {SUITE} in {tree}; that takes some minutes, once")
            _make(tree, wanted, lock.fileno())
    return tree


def _make(tree: Path, wanted: str, lock: int) -> None:
    """Beside it, and renamed when it is whole; what a run that was killed has left there goes first."""
    fresh = tree.with_name(f"{tree.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    work, root, archive = fresh / "work", fresh / "root", fresh / "tree.tar"
    work.mkdir(parents=True)
    root.mkdir()
    unread = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in _UNREAD]
    _run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={wanted}", *unread, SUITE, archive], work, lock)
    _run(["tar", "-C", root, "-xf", archive, *(f"--exclude={each}" for each in _OWN)], work, lock)
    _run(["sync", "--file-system", root], work, lock)
    root.rename(tree)
    shutil.rmtree(fresh)


def _run(argv: list[str | Path], work: Path, lock: int) -> None:
    """The child holds the lock, too: it may outlive us."""
    environment = {**os.environ, "TMPDIR": str(work), "LC_ALL": "C"}
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=[lock]
    )
    if done.returncode:
        raise ShoalError(f"{argv[0]} cannot make a Debian {SUITE}: {done.stderr.strip()[-2000:] or done.returncode}")
