"""`create`: a container's process up to its gate; `release` opens that.

Order: claim the id, save the record, make the cgroup, clone, follow the child to the gate, save its pid. Whoever kills
us in between leaves a record that `delete --force` finishes, and a child that dies with us.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.kernel import pidfd as pidfds
from agent.kernel import syscalls as sys
from agent.runtime import blocks, lsm
from agent.runtime.blocks import Stops, Wiring
from agent.runtime.cgroups.group import Group, Groups
from agent.runtime.console import Console
from agent.runtime.failure import Failure
from agent.runtime.means import bounds, can_mknod, compiled
from agent.runtime.oci import child, copyup, home, hooks, idmap
from agent.runtime.oci.child import Child, Surroundings
from agent.runtime.oci.record import CREATING, Place, Record, state
from agent.runtime.outcome import told, wrapped
from agent.runtime.root import Root
from agent.runtime.spec import config as specs
from agent.runtime.spec.config import Spec

_CGROUP = "shoal-runtime"  # begins the cgroup's name of a container whose configuration names none


class Wish(NamedTuple):
    """How a container is to be created, apart from its configuration."""

    bundle: Path
    console: Console | None = None
    pid_file: str = ""
    pivot: bool = True
    keyring: bool = True
    preserved: int = 0


def configuration(bundle: Path) -> dict[str, Any]:
    """The bundle's config.json, with its relative paths made absolute. Raises Failure."""
    path = bundle / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure("NotFound", f"JSON specification file {path} not found") from None
    except ValueError as error:
        raise Failure("InvalidArgument", f"{path}: {error}") from error
    if not isinstance(config.get("root"), dict) or not config["root"].get("path"):
        raise Failure("InvalidArgument", f"{path}: root.path is missing")
    if not isinstance(config.get("process"), dict):
        raise Failure("InvalidArgument", f"{path}: process is missing")
    if not str(config.get("ociVersion", "")).startswith("1."):
        raise Failure("Unsupported", f"{path}: ociVersion {config.get('ociVersion')!r}", "this runtime knows 1.x")
    config["root"]["path"] = str((bundle / config["root"]["path"]).resolve())
    for mount in config.get("mounts") or ():
        if mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options") or ()):
            mount["source"] = str(bundle / mount.get("source", ""))
        mount["destination"] = "/" + mount["destination"].lstrip("/")  # runc and crun take relative ones
    return config


def create(place: Place, config: dict[str, Any], wish: Wish) -> Child:
    """Create a container; its process waits at the gate. On failure nothing of it is left."""
    config = {**config, "process": home.given(config["process"], config["root"]["path"])}
    spec = specs.parse(config)
    lsm.check(spec.process)
    if not Path(config["root"]["path"]).is_dir():
        raise Failure("NotFound", f"root.path {config['root']['path']} is no directory")
    groups = Groups()
    record = Record(
        id=place.id,
        bundle=str(wish.bundle),
        rootfs=config["root"]["path"],
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        owner=_user(),
        cgroup=spec.cgroup.strip("/") or f"{_CGROUP}-{place.id}",
        controllers=tuple(sorted(groups.layout.v1)),
        own_pids=spec.namespaces.get(sys.CLONE_NEWPID) == "",
        annotations=dict(config.get("annotations") or {}),
    )
    place.make()
    group: Group | None = None
    try:
        place.save(record)
        place.save_config(config)
        group = groups.create(record.cgroup, spec.limits, everywhere=True)
        born = _born(place, record, spec, group, wish)
        if wish.pid_file:
            write_pid(wish.pid_file, born.pid)
    except BaseException as error:
        with contextlib.suppress(OSError, Failure):
            if group is not None:
                group.kill()
                group.remove()
        place.remove()
        raise wrapped(error) from error
    return born


def _born(place: Place, record: Record, spec: Spec, group: Group, wish: Wish) -> Child:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as opened, ours:
        os.mkfifo(place.gate, 0o600)
        gate = os.open(place.gate, os.O_RDWR | os.O_CLOEXEC)
        opened.callback(os.close, gate)
        failures = os.open(place.failure, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, failures)
        cgroup_fd, tasks = entrances(group, opened)
        joins = {kind: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for kind, path in spec.namespaces.items() if path}
        for fd in joins.values():
            opened.callback(os.close, fd)
        around = Surroundings(
            joins=_before_clone(spec, joins),
            new_time=spec.namespaces.get(sys.CLONE_NEWTIME) == "",
            offsets=spec.time_offsets,
            cgroup_fd=cgroup_fd,
        )
        wiring = Wiring(
            bounds=bounds(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            filter=compiled(spec),
            tasks=tuple(tasks),
            stdio=None if wish.console else (0, 1, 2),
            console=wish.console,
            joins=tuple((fd, kind) for kind, fd in joins.items() if kind not in around.joins),
            keyring=wish.keyring,
            preserved=wish.preserved,
            mount_point=record.rootfs,
            root=Root(path=record.rootfs),
            cgroups=group.mounts(),
            directories=frozenset(
                mount.origin for mount in spec.mounts if mount.kind == "bind" and Path(mount.origin).is_dir()
            ),
            can_mknod=sys.CLONE_NEWUSER not in spec.namespaces and can_mknod(str(place.path / "node")),
            pivot=wish.pivot,
            sources=tuple(_sources(spec, record, opened)),
            stops=Stops(theirs.fileno(), gate),
        )
        if wish.console is None:
            own_stdio(idmap.outside(spec.process.uid, spec.uids))
        program = blocks.start(spec, wiring)
        born = child.begin(program, spec.process, blocks.clone_flags(spec.namespaces), around, failures)
        theirs.close()
        try:
            record = _with_pid(record, born.pid)
            _lead(place, record, spec, born, ours)
            place.save(record._replace(made=True))
        except BaseException:
            kill(born)
            raise
        return born


def _before_clone(spec: Spec, joins: Mapping[int, int]) -> dict[int, int]:
    """What has to be entered before the clone: a pid namespace, which takes children only; a user namespace, which
    owns what is made in it; and with one, since a new one has no right to others' namespaces, all but the mounts."""
    first = sys.CLONE_NEWPID | sys.CLONE_NEWTIME
    if sys.CLONE_NEWUSER in spec.namespaces:
        first = ~sys.CLONE_NEWNS
    return {kind: fd for kind, fd in joins.items() if kind & first}


def _lead(place: Place, record: Record, spec: Spec, born: Child, channel: socket.socket) -> None:
    """Follow the child to its gate, doing what it waits for."""
    for word in child.conversation(channel):
        if word == blocks.MAPPED:
            if spec.uids:
                idmap.write(born.pid, spec.uids, spec.gids)
            if spec.process.oom_score_adj is not None:
                with contextlib.suppress(PermissionError):  # below our own it takes CAP_SYS_RESOURCE
                    Path(f"/proc/{born.pid}/oom_score_adj").write_text(str(spec.process.oom_score_adj))
        elif word == blocks.MOUNTED:
            place.save(record)  # hooks may ask for the state
            now = state(record, CREATING)
            hooks.run(spec, "prestart", now)
            hooks.run(spec, "createRuntime", now)
            hooks.run(spec, "createContainer", now, pidfd=born.pidfd)
        elif word == blocks.READY:
            return
    raise told(place.failure.read_bytes()) or Failure(
        "StartFailed", "unable to start container process: it was killed while it was being made"
    )


def _sources(spec: Spec, record: Record, opened: contextlib.ExitStack) -> Iterator[tuple[str, int]]:
    """Detached mounts that take the rights of the host, or its view, to make."""
    for mount in spec.mounts:
        fd = -1
        if mount.id_mapped:
            fd = idmap.mapped(mount, spec)
        elif mount.copy_up:
            fd = copyup.filled(mount, record.rootfs)
        if fd >= 0:
            opened.callback(os.close, fd)
            yield mount.destination, fd


def entrances(group: Group, opened: contextlib.ExitStack) -> tuple[int, list[int]]:
    """What a process joins the group through, open until `opened` is left."""
    cgroup_fd, tasks = group.open()
    for fd in (cgroup_fd, *tasks):
        if fd >= 0:
            opened.callback(os.close, fd)
    return cgroup_fd, tasks


def own_stdio(uid: int) -> None:
    """Give our stdio to the container's user, so that it may open /dev/stdout again; devices stay whose they are."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            about = os.fstat(fd)
            if about.st_uid != uid and not os.isatty(fd) and about.st_rdev != os.makedev(1, 3):
                os.fchown(fd, uid, -1)


def kill(born: Child) -> None:
    pidfds.send_signal(born.pidfd, 9)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, born.pidfd, os.WEXITED)


def write_pid(path: str, pid: int) -> None:
    new = Path(f"{path}.new")
    new.write_text(str(pid), encoding="ascii")
    new.rename(path)


def _with_pid(record: Record, pid: int) -> Record:
    return record._replace(pid=pid, start_time=pidfds.start_time(pid))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
