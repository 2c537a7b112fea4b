"""What this host has to give to containers. Read when it is asked for; nothing here changes anything."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from agent.container.bundle import Device, Limit, Share, resources
from agent.runtime.capability import NAMES, SYS_RESOURCE, own_permitted
from agent.runtime.cgroups import v1
from agent.runtime.cgroups.base import Layout, detect
from agent.runtime.spec.resources import parse_limits
from shoal.errors import SourceNotFound, StartFailed, Unsupported
from shoal.model.container import Container, DeviceMapping, DeviceWeight, Throttle, Tuning, Ulimit
from shoal.names import is_device_name

# Static ones only: nothing of the host's libraries exists inside a container.
_INIT_PROGRAMS = ("/usr/bin/tini-static", "/usr/bin/docker-init", "/usr/libexec/podman/catatonit", "/usr/bin/catatonit")
# The options by the files of cgroup v1 that not every kernel has.
_LACKS = "Your kernel does not support {} or the cgroup is not mounted. {}"
_SWAP = "memory.memsw.limit_in_bytes"
_DISCARDED = {
    _SWAP: _LACKS.format("swap limit capabilities", "Memory limited without swap."),
    "blkio.bfq.weight": _LACKS.format("Block I/O weight", "Weight discarded."),
    "blkio.bfq.weight_device": _LACKS.format("Block I/O weight_device", "Weight-device discarded."),
}
# What a container has of its own under /dev.
_OWN_DEV = frozenset(("pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".lxd-mounts", ".udev"))


def boot_id() -> str:
    """Another one after every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def available_capabilities() -> frozenset[str]:
    """What this process may hand on."""
    mask = own_permitted()
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def check_ulimits(wanted: Sequence[Ulimit]) -> None:
    """Raises StartFailed for a limit above this host's own, where that may not be raised."""
    if not wanted or own_permitted() & SYS_RESOURCE:
        return
    for each in wanted:
        if each.name == "locks":  # nothing has looked at it since Linux 2.4
            continue
        most = resource.getrlimit(getattr(resource, f"RLIMIT_{each.name.upper()}"))[1]
        if most != resource.RLIM_INFINITY and not 0 <= each.hard <= most:
            raise StartFailed(
                f"error setting ulimit {each.name}={each.soft}:{each.hard}: operation not permitted",
                hint=f"the hard limit of this host is {most}",
            )


def check_realtime(tuning: Tuning, layout: Layout | None = None) -> None:
    """Raises Unsupported where a container wants time for real-time schedulers and the kernel of this host keeps none
    for groups. `layout` is this host's, if not given."""
    if not tuning.cpu_realtime_period_us and not tuning.cpu_realtime_runtime_us:
        return
    layout = layout or detect()
    served = "cpu" in layout.v1 and "cpu" not in layout.v2_controllers
    if not served or not Path(layout.v1["cpu"].path, "cpu.rt_runtime_us").exists():
        raise Unsupported(
            "kernel does not support CPU real-time scheduler",
            hint="it takes cgroup v1 and CONFIG_RT_GROUP_SCHED; without, --ulimit rtprio and --cap-add sys_nice do",
        )


def discarded(container: Container, layout: Layout | None = None) -> tuple[str, ...]:
    """Which of its limits the kernel of this host does not have, in docker's words; the container runs without.
    `layout` is this host's, if not given."""
    weights = [Share(0, 0, each.weight) for each in container.tuning.device_weights]  # whichever devices they are
    limits = parse_limits(resources(container, weights=weights))
    unlimited = (limits.swap_bytes or 0) <= 0
    if unlimited and not limits.io_weight and not weights:
        return ()
    missing = dict.fromkeys(v1.discarded(limits, layout or detect()))
    return tuple(_DISCARDED[file] for file in missing if not (unlimited and file == _SWAP))


def thermal_files() -> tuple[str, ...]:
    """Readable by any user, and a side channel, so they are masked."""
    return tuple(sorted(str(each) for each in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")))


def enforces_labels() -> bool:
    """Whether SELinux is in force here."""
    return Path("/sys/fs/selinux/enforce").exists()


def mount_of(path: str) -> tuple[str, frozenset[str]]:
    """(Where the mount that `path` lies in is mounted, what it shares: "shared", "master", "unbindable")."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        about = Path(f"/proc/self/fdinfo/{place}").read_text(encoding="ascii")
    finally:
        os.close(place)
    number = next(line.split()[1] for line in about.splitlines() if line.startswith("mnt_id:"))
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        words = line.split()
        if words[0] == number:
            return words[4], frozenset(each.partition(":")[0] for each in words[6 : words.index("-", 6)])
    raise StartFailed(f"the mount of {path} is not to be found")


def init_program() -> str:
    """A static program that reaps and forwards signals as PID 1. Raises Unsupported where there is none."""
    for path in _INIT_PROGRAMS:
        if os.access(path, os.X_OK):
            return path
    raise Unsupported("--init needs a static init program on this host", hint="install Debian's package tini")


def devices() -> tuple[Device, ...]:
    """Every device node of the host, for privileged containers."""
    return tuple(_devices("/dev"))


def mapped_devices(mappings: Iterable[DeviceMapping]) -> tuple[Device, ...]:
    """The devices of `--device` by their paths (`cdi` has those by name); a folder stands for those in it.

    Raises SourceNotFound and StartFailed in docker's words."""
    found: list[Device] = []
    for each in mappings:
        if is_device_name(each.source):
            continue
        target, access = each.target or each.source, each.permissions or "rwm"
        try:
            about = Path(each.source).stat()
        except OSError as error:
            kind = SourceNotFound if isinstance(error, FileNotFoundError) else StartFailed
            raise kind(
                f'error gathering device information while adding custom device "{each.source}": '
                f"{(error.strerror or str(error)).lower()}"
            ) from error
        inside = _devices(each.source) if stat.S_ISDIR(about.st_mode) else _device(each.source, about)
        moved = [
            msgspec.structs.replace(one, path=target + one.path.removeprefix(each.source), access=access)
            for one in inside
        ]
        if not moved:
            raise StartFailed(
                f'error gathering device information while adding custom device "{each.source}": not a device node'
            )
        found += moved
    return tuple(found)


def throttled(throttles: Iterable[Throttle]) -> tuple[Limit, ...]:
    """By number. Raises StartFailed for what is no block device."""
    return tuple(Limit(each.kind, *_block_device(each.path), each.rate) for each in throttles)


def weighted(weights: Iterable[DeviceWeight]) -> tuple[Share, ...]:
    """By number. Raises StartFailed for what is no block device."""
    return tuple(Share(*_block_device(each.path), each.weight) for each in weights)


def _block_device(path: str) -> tuple[int, int]:
    try:
        about = Path(path).stat()
    except OSError as error:
        raise StartFailed(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not stat.S_ISBLK(about.st_mode):
        raise StartFailed(f"{path} is not a block device", hint="give the disk, such as /dev/sda")
    return os.major(about.st_rdev), os.minor(about.st_rdev)


def _devices(folder: str) -> Iterator[Device]:
    try:
        entries = sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError:
        return
    for entry in entries:
        if folder == "/dev" and entry.name in _OWN_DEV:
            continue
        try:
            about = entry.stat(follow_symlinks=False)
        except OSError:  # unplugged meanwhile
            continue
        if stat.S_ISDIR(about.st_mode):
            yield from _devices(entry.path)
        else:
            yield from _device(entry.path, about)


def _device(path: str, about: os.stat_result) -> Iterator[Device]:
    """Nothing for what is no device."""
    if stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
        yield Device(
            path=path,
            kind="c" if stat.S_ISCHR(about.st_mode) else "b",
            major=os.major(about.st_rdev),
            minor=os.minor(about.st_rdev),
            mode=about.st_mode & 0o777,
            uid=about.st_uid,
            gid=about.st_gid,
        )
