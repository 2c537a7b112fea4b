"""Root: the file system of a host, made from inside of its namespaces. An overlay over its tree with what is the host's
own: a disk, a name, kernel file systems, devices, and somebody who may log in.
"""

from __future__ import annotations

import os
from pathlib import Path

from machine.drivers.local import cgroup, kernel, tool
from machine.drivers.local.rack import Host, Rack

_FLAGS = kernel.NOSUID | kernel.NODEV | kernel.NOEXEC
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun")
_LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "fd/0"),
    ("stdout", "fd/1"),
    ("stderr", "fd/2"),
)


def enter(rack: Rack, host: Host) -> None:
    """Make it this process's root."""
    home = rack.home(host.name)
    root = home / "root"
    kernel.keep_mounts_to_ourselves()
    # By names beside it, so that no path has to be escaped (overlayfs, Documentation/filesystems).
    os.chdir(home)
    kernel.mount("overlay", root, "overlay", 0, "lowerdir=tree,upperdir=upper,workdir=work")
    for inside, folder in host.kept.items():
        kernel.bind(rack.disk / host.name / folder, root / inside)
    kernel.mount("proc", root / "proc", "proc", _FLAGS)
    kernel.mount("sysfs", root / "sys", "sysfs", _FLAGS)
    for folder, mode in (("run", "755"), ("tmp", "1777"), ("dev", "755")):
        kernel.mount("tmpfs", root / folder, "tmpfs", kernel.NOSUID, f"mode={mode}")
    for each in host.shown:
        kernel.bind(Path(each), root / each.lstrip("/"), readonly=True)
    _make_devices(root / "dev")
    cgroup.mount(root / "sys/fs/cgroup")
    _give_boot_id(root)
    _write(root, home / "upper", host)
    if host.authorized:
        _let_in(root, host.authorized)
    kernel.pivot(root)


def make_key(path: Path, *, comment: str = "") -> None:
    """A pair of SSH keys, the public one as PATH.pub, where there is none yet."""
    if path.exists():
        return
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    tool.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh))
    fresh.with_name(f"{fresh.name}.pub").rename(path.with_name(f"{path.name}.pub"))
    fresh.rename(path)


def _write(root: Path, changes: Path, host: Host) -> None:
    """What makes it another host than those on the same tree, once; and what it finds anew at each boot."""
    first = {
        "etc/hostname": f"{host.name}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n{host.address}\t{host.name}\n",
        "etc/resolv.conf": "",
        "etc/machine-id": f"{host.machine_id}\n",
    }
    missing = {path: content for path, content in first.items() if not (changes / path).exists()}
    for path, content in {**missing, **host.files}.items():
        # Some are links of the tree's.
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(content)


def _let_in(root: Path, key: str) -> None:
    """What a fresh Debian has of its own: a host key, and somebody who may log in."""
    make_key(root / "etc/ssh/ssh_host_ed25519_key")
    authorized = root / "root/.ssh/authorized_keys"
    authorized.parent.mkdir(mode=0o700, exist_ok=True)
    if not authorized.exists():
        authorized.write_text(f"{key}\n")


def _give_boot_id(root: Path) -> None:
    """The kernel has one for all hosts, and each of them boots by itself (systemd-nspawn(1) does the same)."""
    file = root / "run/boot-id"
    file.write_text(Path("/proc/sys/kernel/random/uuid").read_text())
    kernel.bind(file, root / "proc/sys/kernel/random/boot_id", readonly=True)
    file.unlink()


def _make_devices(dev: Path) -> None:
    for node in _DEVICES:
        if Path("/dev", node).exists():
            kernel.bind(Path("/dev", node), dev / node)
    for folder, kind, options in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("shm", "tmpfs", "mode=1777"),
        ("mqueue", "mqueue", ""),
    ):
        (dev / folder).mkdir()
        kernel.mount(kind, dev / folder, kind, kernel.NOSUID | kernel.NOEXEC, options)
    for link, target in _LINKS:
        (dev / link).symlink_to(target)
