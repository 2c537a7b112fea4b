"""`exec`: another process in a container that runs, in its namespaces, cgroup and filter."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.kernel import syscalls as sys
from agent.runtime import blocks, lsm
from agent.runtime.blocks import Wiring
from agent.runtime.cgroups.group import Groups
from agent.runtime.console import Console
from agent.runtime.failure import Failure
from agent.runtime.means import bounds, compiled
from agent.runtime.oci import child, home, idmap
from agent.runtime.oci.arguments import Options, usage
from agent.runtime.oci.child import Child, Surroundings
from agent.runtime.oci.create import entrances, kill, own_stdio, write_pid
from agent.runtime.oci.record import CREATED, RUNNING, Place, group_of, status
from agent.runtime.outcome import told
from agent.runtime.spec import config as specs
from agent.runtime.spec.process import parse_process

_SETS = ("bounding", "effective", "permitted")


class Wish(NamedTuple):
    """`process` is an OCI process; what of it is missing is not taken from the container."""

    process: Mapping[str, Any]
    console: Console | None = None
    pid_file: str = ""
    preserved: int = 0


def process_of(place: Place, options: Options, words: tuple[str, ...]) -> dict[str, Any]:
    """The process that a command line describes: a file of it, or a command as the container's own process but for
    what the options say. Raises Failure."""
    if options.text("--process"):
        path = Path(options.text("--process"))
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failure("InvalidArgument", f"{path}: {error}") from error
        return found
    if not words:
        raise usage("exec needs a command or --process")
    base = place.config()["process"]
    process = {**base, "args": list(words), "terminal": options.given("--tty")}
    process["env"] = [*(base.get("env") or ()), *options.many("--env")]
    user = dict(base.get("user") or {})
    if options.text("--user"):
        uid, colon, gid = options.text("--user").partition(":")
        if not uid.isdigit() or (colon and not gid.isdigit()):
            raise usage("--user takes numbers, UID[:GID]")
        user = {"uid": int(uid), "gid": int(gid or 0)}
    if options.many("--additional-gids"):
        user["additionalGids"] = [int(gid) for gid in options.many("--additional-gids")]
    process["user"] = user
    capabilities = {name: list(names) for name, names in (base.get("capabilities") or {}).items()}
    for name in _SETS if options.many("--cap") else ():
        capabilities[name] = [*capabilities.get(name, ()), *options.many("--cap")]
    process["capabilities"] = capabilities
    for option, field in (("--cwd", "cwd"), ("--apparmor", "apparmorProfile"), ("--process-label", "selinuxLabel")):
        if options.text(option):
            process[field] = options.text(option)
    if options.given("--no-new-privs"):
        process["noNewPrivileges"] = True
    return process


def execute(place: Place, wish: Wish) -> Child:
    """Start the process; returns when it has been exec'ed. Raises Failure in docker's words."""
    record, groups = place.load(), Groups()
    condition = status(place, record, groups)
    if condition not in (RUNNING, CREATED):
        raise Failure("Conflict", f"cannot exec in a container that is {condition}: {place.id}")
    spec = specs.parse(place.config())
    process = parse_process(home.given(dict(wish.process), record.rootfs))
    lsm.check(process)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, reader)
        pidfd = os.pidfd_open(record.pid)
        opened.callback(os.close, pidfd)
        cgroup_fd, tasks = entrances(group_of(record, groups), opened)
        kinds = sum(spec.namespaces)
        wiring = Wiring(
            bounds=bounds(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            filter=compiled(spec),
            tasks=tuple(tasks),
            stdio=None if wish.console else (0, 1, 2),
            console=wish.console,
            joins=((pidfd, kinds & ~sys.CLONE_NEWPID),),
            preserved=wish.preserved,
        )
        if wish.console is None:
            own_stdio(idmap.outside(process.uid, spec.uids))
        around = Surroundings({sys.CLONE_NEWPID: pidfd} if kinds & sys.CLONE_NEWPID else {}, cgroup_fd=cgroup_fd)
        born = child.begin(blocks.execute(process, wiring), process, 0, around, writer)
        os.close(writer)
        failed = told(os.read(reader, 1 << 16))  # at its exec, or its end, the child lets go of the pipe
        if failed is not None:
            kill(born)
            raise failed
        if wish.pid_file:
            write_pid(wish.pid_file, born.pid)
        return born
