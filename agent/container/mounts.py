"""The mounts of a container's OCI config: docker's defaults, the user's, single files over them. Pure.

`agent.container.settle` refuses what can never be mounted, `agent.container.place` knows where it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from agent.container.isolation import HOST, NONE
from shoal.defaults import SHM_SIZE_BYTES
from shoal.model.container import Container, Mount, MountType

Config = dict[str, Any]

INIT_PATH = "/sbin/docker-init"
BENEATH = "X-mount.subdir="  # util-linux's word for the folder of a bind mount's source that is meant
_NO = ("nosuid", "noexec", "nodev")


class Places(Protocol):
    """What `bundle.Facts` says of where mounts come from."""

    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def files(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def shm_path(self) -> str: ...
    @property
    def init_path(self) -> str: ...


def mounts(container: Container, places: Places) -> list[Config]:
    """The defaults that nothing of the user's lies over, the user's from the root down, then the single files."""
    targets = {each.target for each in container.mounts}
    defaults = [
        each
        for each in _default_mounts(container, places.shm_path)
        if each["destination"] not in targets and not ("/dev" in targets and each["destination"].startswith("/dev/"))
    ]
    wanted = sorted(zip(container.mounts, places.sources, strict=True), key=lambda each: each[0].target.count("/"))
    read_only = [*(["ro"] if container.spec.read_only else []), *_mapped(container)]
    free = [(source, target) for target, source in places.files if target not in targets]
    files = [_bind(source, target, ["rprivate", *read_only]) for source, target in free]
    init = [_bind(places.init_path, INIT_PATH, ["rprivate", "ro"])] if places.init_path else []
    return [*defaults, *(_mount(mount, source, _mapped(container)) for mount, source in wanted), *files, *init]


def _default_mounts(container: Container, shm_path: str) -> list[Config]:
    shm_bytes = container.spec.shm_size_bytes or SHM_SIZE_BYTES
    guard = [] if container.spec.privileged else ["ro"]
    queue, memory = (
        _fs("/dev/mqueue", "mqueue", _NO),
        _fs("/dev/shm", "tmpfs", (*_NO, "mode=1777", f"size={shm_bytes}"), source="shm"),
    )
    ipc = [queue, memory]
    if container.spec.ipc_mode == HOST or shm_path:
        ipc = [queue, _bind(shm_path or "/dev/shm", "/dev/shm", ["rprivate", *_NO])]
    elif container.spec.ipc_mode == NONE:
        ipc = [queue]
    return [
        _fs("/proc", "proc", _NO),
        _fs("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        _fs("/dev/pts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
        _fs("/sys", "sysfs", (*_NO, *guard)),
        _fs("/sys/fs/cgroup", "cgroup", (*guard, *_NO)),
        *ipc,
    ]


def _mapped(container: Container) -> list[str]:
    """In a user namespace, what is ours shows the container's ids; a folder of the host's keeps its owners."""
    return ["idmap"] if container.first_id else []


def _mount(mount: Mount, source: str, mapped: Sequence[str]) -> Config:
    guard = ["ro"] if mount.read_only else []
    if mount.type == MountType.TMPFS:
        size = [f"size={mount.tmpfs_size_bytes}"] if mount.tmpfs_size_bytes else []
        mode = f"mode={mount.tmpfs_mode or 0o1777:o}"
        return _fs(mount.target, "tmpfs", (*_NO, "rprivate", *guard, *size, mode, *mount.tmpfs_options))
    if guard and mount.recursion != "writable":
        guard = ["rro"]  # also what is mounted below the source
    beneath = [f"{BENEATH}{mount.subpath}"] if mount.subpath else []
    own = mapped if mount.type == MountType.VOLUME else ()
    made = _bind(source, mount.target, [mount.propagation or "rprivate", *guard, *beneath, *own])
    return {**made, "options": ["bind", *made["options"][1:]]} if mount.recursion == "disabled" else made


def _fs(target: str, kind: str, options: Sequence[str], *, source: str = "") -> Config:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def _bind(source: str, target: str, options: Sequence[str]) -> Config:
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", *options]}
