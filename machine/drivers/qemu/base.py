"""Base: the disk of our own Debian that machines without an image stand on, with its kernel; made once and kept.

It is a tree like those of other drivers with a kernel, and with what makes one image many machines: a unit that unpacks
each machine's seed. A base that a newer Shoal would make otherwise is another one, so old machines keep theirs.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from machine.drivers.local import tree
from machine.drivers.qemu.arguments import ROOT_LABEL, SEED_SERIAL
from machine.drivers.qemu.process import missing
from shoal.errors import ShoalError

PACKAGES = (*tree.NODE, "udev", "linux-image-cloud-amd64")
# Of the base; a machine's own is larger, and its file system grows into it.
_SIZE = "2G"
_SEEDED = "/etc/shoal-seeded"
_SEED = f"/dev/disk/by-id/virtio-{SEED_SERIAL}"
# Power may go at any line: it is done once all of it is on the disk. No network, and so no sshd, comes before.
_UNIT = f"""[Unit]
Description=Name, keys and addresses of this machine
ConditionPathExists=!{_SEEDED}
DefaultDependencies=no
Wants=network-pre.target
After=systemd-remount-fs.service systemd-udevd.service
Before=network-pre.target systemd-networkd.service ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh -ec 'udevadm wait {_SEED}; tar -C / -xf {_SEED}; hostname -F /etc/hostname; sync; touch {_SEEDED}'
"""
_FILES = {
    "etc/fstab": f"LABEL={ROOT_LABEL} / ext4 defaults,x-systemd.growfs 0 1\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/systemd/system/shoal-seed.service": _UNIT,
    # Where QEMU has no KVM, all takes ten times as long.
    "etc/systemd/system.conf.d/shoal.conf": "[Manager]\nDefaultTimeoutStartSec=600s\nDefaultDeviceTimeoutSec=600s\n",
}
_WANTED = "etc/systemd/system/multi-user.target.wants"
_LINKS = {
    f"{_WANTED}/shoal-seed.service": "/etc/systemd/system/shoal-seed.service",
    f"{_WANTED}/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
}


def obtain(cache: Path, trees: Path, *, tell: Callable[[str], None]) -> Path:
    """The folder with `disk`, `kernel` and `initrd`, from `cache` or made anew from a tree in `trees`. `tell` hears of
    what takes minutes. Raises ShoalError with what the tools said."""
    words = "\n".join(
        [*PACKAGES, _SIZE, *(text for each in (_FILES, _LINKS) for pair in each.items() for text in pair)]
    )
    base = cache / f"{tree.SUITE}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    if base.exists():
        return base
    whole = tree.obtain(PACKAGES, trees, tell=tell)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            tell(f"making a disk of it in {base}")
            _make(base, whole)
    return base


def _make(base: Path, whole: Path) -> None:
    """Beside it, and renamed when it is whole."""
    fresh = base.with_name(f"{base.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    root = fresh / "root"
    _run("cp", "--archive", "--reflink=auto", str(whole), str(root))
    _tell_apart(root)
    for name, found in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (path,) = (root / "boot").glob(found)
        path.rename(fresh / name)
    disk = str(fresh / "disk")
    _run("mke2fs", "-q", "-t", "ext4", "-L", ROOT_LABEL, "-d", str(root), disk, _SIZE)
    shutil.rmtree(root)
    _run("sync", "--file-system", disk)
    fresh.rename(base)


def _tell_apart(root: Path) -> None:
    """The files that make a machine of it."""
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    for name, target in _LINKS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise missing(argv[0]) from error
    if done.returncode:
        raise ShoalError(f"{' '.join(argv)}: {done.stderr.strip()[-2000:] or done.returncode}")
