"""Entries of `mounts`, with every option that mount(8) and the runtime specification name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from agent.kernel import syscalls as sys
from agent.runtime.spec.refusal import absolute, invalid, only, refuse

PROPAGATION = {
    "private": sys.MS_PRIVATE,
    "shared": sys.MS_SHARED,
    "slave": sys.MS_SLAVE,
    "unbindable": sys.MS_UNBINDABLE,
}
# option: (mount(2) flag, set or cleared)
_FLAGS = {
    "ro": (sys.MS_RDONLY, True),
    "rw": (sys.MS_RDONLY, False),
    "nosuid": (sys.MS_NOSUID, True),
    "suid": (sys.MS_NOSUID, False),
    "nodev": (sys.MS_NODEV, True),
    "dev": (sys.MS_NODEV, False),
    "noexec": (sys.MS_NOEXEC, True),
    "exec": (sys.MS_NOEXEC, False),
    "sync": (sys.MS_SYNCHRONOUS, True),
    "async": (sys.MS_SYNCHRONOUS, False),
    "dirsync": (sys.MS_DIRSYNC, True),
    "mand": (sys.MS_MANDLOCK, True),
    "nomand": (sys.MS_MANDLOCK, False),
    "noatime": (sys.MS_NOATIME, True),
    "atime": (sys.MS_NOATIME, False),
    "nodiratime": (sys.MS_NODIRATIME, True),
    "diratime": (sys.MS_NODIRATIME, False),
    "relatime": (sys.MS_RELATIME, True),
    "norelatime": (sys.MS_RELATIME, False),
    "strictatime": (sys.MS_STRICTATIME, True),
    "nostrictatime": (sys.MS_STRICTATIME, False),
    "lazytime": (sys.MS_LAZYTIME, True),
    "nolazytime": (sys.MS_LAZYTIME, False),
    "iversion": (sys.MS_I_VERSION, True),
    "noiversion": (sys.MS_I_VERSION, False),
    "silent": (sys.MS_SILENT, True),
    "loud": (sys.MS_SILENT, False),
    "nosymfollow": (sys.MS_NOSYMFOLLOW, True),
    "symfollow": (sys.MS_NOSYMFOLLOW, False),
    "defaults": (0, True),
}
# These hold for one mount, so that with an "r" in front they can hold for all below it too.
_PER_MOUNT = (
    "ro rw nosuid suid nodev dev noexec exec noatime atime nodiratime diratime relatime norelatime strictatime"
    " nostrictatime nosymfollow symfollow"
).split()
_DEEP = {f"r{name}": _FLAGS[name] for name in _PER_MOUNT}
_BENEATH = "X-mount.subdir="  # libmount's word
# /proc is trusted by the kernel's own checks: only these files of it may be covered (lxcfs), as runc has it.
_PROC_FILES = {
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
}


def options() -> list[str]:
    """Every option that is not passed on to the file system."""
    deep = [f"r{name}" for name in PROPAGATION]
    return sorted([*_FLAGS, *_DEEP, *PROPAGATION, *deep, "bind", "rbind", "tmpcopyup", "idmap", "ridmap"])


class IdMapping(NamedTuple):
    """`size` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    size: int


class Mount(NamedTuple):
    """One entry of `mounts`. `propagation` 0 means the default, private."""

    destination: str
    kind: str  # a filesystem type, or "bind"
    source: str
    set_flags: int = 0
    clear_flags: int = 0
    data: str = ""
    recursive: bool = False  # rbind
    beneath: str = ""  # the folder of the source that is meant, never followed out of it
    deep_set_flags: int = 0  # rro, rnosuid…: of submounts too
    deep_clear_flags: int = 0
    propagation: int = 0
    deep_propagation: bool = False
    copy_up: bool = False  # tmpcopyup: begins with what the image has there
    id_mapped: bool = False
    deep_id_mapped: bool = False
    uids: tuple[IdMapping, ...] = ()  # none: those of the container's user namespace
    gids: tuple[IdMapping, ...] = ()

    @property
    def origin(self) -> str:
        """The path that is bound."""
        return f"{self.source}/{self.beneath}" if self.beneath else self.source


class _Options:
    """What the options seen so far add up to; a later one overrides an earlier."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.flags = {"": (0, 0), "deep_": (0, 0)}  # set, cleared
        self.data: list[str] = []
        self.bind = False

    def take(self, option: str) -> None:
        if option in ("bind", "rbind"):
            self.bind, self.fields["recursive"] = True, option == "rbind"
        elif option in _FLAGS:
            self._flag("", *_FLAGS[option])
        elif option in _DEEP:
            self._flag("", *_DEEP[option])
            self._flag("deep_", *_DEEP[option])
        elif option.removeprefix("r") in PROPAGATION:
            self.fields["propagation"] = PROPAGATION[option.removeprefix("r")]
            self.fields["deep_propagation"] = option.startswith("r")
        elif option == "tmpcopyup":
            self.fields["copy_up"] = True
        elif option in ("idmap", "ridmap"):
            self.fields["id_mapped"], self.fields["deep_id_mapped"] = True, option == "ridmap"
        elif option.startswith(_BENEATH):
            self.fields["beneath"] = option.removeprefix(_BENEATH)
        elif option in ("copy-symlink", "dest-nofollow", "src-nofollow", "remount"):
            raise refuse(f"mount option {option}")
        else:
            self.data.append(option)

    def _flag(self, depth: str, flag: int, wanted: bool) -> None:
        to_set, to_clear = self.flags[depth]
        self.flags[depth] = (to_set | flag, to_clear & ~flag) if wanted else (to_set & ~flag, to_clear | flag)


def parse_mount(entry: Mapping[str, Any]) -> Mount:
    only("mounts[].", entry, "destination type source options uidMappings gidMappings")
    return _mount(
        entry["destination"],
        entry.get("type") or "none",
        entry.get("source") or "",
        tuple(entry.get("options") or ()),
        parse_mappings(entry.get("uidMappings")),
        parse_mappings(entry.get("gidMappings")),
    )


@lru_cache(maxsize=256)  # most containers have the same ones
def _mount(
    target: str,
    file_system: str,
    source: str,
    words: tuple[str, ...],
    uids: tuple[IdMapping, ...],
    gids: tuple[IdMapping, ...],
) -> Mount:
    destination = absolute(target)
    options = _Options()
    for option in words:
        options.take(option)
    kind = "bind" if options.bind else file_system
    mount = Mount(
        destination,
        kind,
        source or kind,
        *options.flags[""],
        ",".join(options.data),
        deep_set_flags=options.flags["deep_"][0],
        deep_clear_flags=options.flags["deep_"][1],
        uids=uids,
        gids=gids,
        **options.fields,
    )
    _check(mount)
    return mount._replace(id_mapped=mount.id_mapped or bool(mount.uids))


def parse_mappings(entries: Any) -> tuple[IdMapping, ...]:
    return tuple(IdMapping(entry["containerID"], entry["hostID"], entry["size"]) for entry in entries or ())


def _check(mount: Mount) -> None:
    destination = mount.destination
    if mount.kind == "bind":
        if mount.data:
            raise invalid(f"mount {destination}: option {mount.data.split(',')[0]} does not apply to a bind mount")
        if not mount.source.startswith("/"):
            raise invalid(f"mount {destination}: the source of a bind mount must be an absolute path")
    elif mount.id_mapped or mount.uids:
        raise refuse(f"mount {destination}: an id map of a file system", "ids of bind mounts can be mapped")
    if mount.beneath and mount.kind != "bind":
        raise invalid(f"mount {destination}: {_BENEATH} is for a bind mount")
    if bool(mount.uids) != bool(mount.gids):
        raise invalid(f"mount {destination}: uidMappings and gidMappings go together")
    if mount.copy_up and mount.kind != "tmpfs":
        raise invalid(f"mount {destination}: tmpcopyup is for a tmpfs")
    if destination == "/":
        raise invalid("a mount on / would hide the container's root")
    if (destination == "/proc" and mount.kind != "proc") or (
        destination.startswith("/proc/") and destination not in _PROC_FILES
    ):
        raise invalid(f"mount {destination}: /proc may not be covered")
