"""`state`, `list`, `ps`, `features` and `spec`: what can be asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.kernel.syscalls import MACHINE
from agent.runtime import capability, seccomp
from agent.runtime.cgroups.group import Groups
from agent.runtime.failure import Failure
from agent.runtime.oci.record import OCI_VERSION, Place, group_of, places, state, status
from agent.runtime.spec import config as specs
from agent.runtime.spec import mount as mounts

_DEFAULT_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def container(place: Place) -> dict[str, Any]:
    record = place.load()
    return state(record, status(place, record, Groups()))


def containers(root: Path) -> list[dict[str, Any]]:
    """The state of each, but for one that is being removed while we look."""
    found = []
    for place in places(root):
        try:
            found.append(container(place))
        except Failure:
            continue
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As runc and crun print them."""
    lines = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    lines += [
        tuple(str(row[name]) for name in ("id", "pid", "status", "bundle", "created", "owner"))  # type: ignore[misc]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def pids(place: Place) -> list[int]:
    return sorted(group_of(place.load(), Groups()).pids())


def processes(numbers: Iterable[int]) -> str:
    """What `ps -ef` of the host says of them."""
    import shutil  # only here, and dear to a command that is short
    import subprocess

    program = shutil.which("ps")
    if program is None:
        raise Failure("Unsupported", "this host has no ps", "use --format json")
    lines = subprocess.run([program, "-ef"], check=True, capture_output=True, text=True).stdout.splitlines()
    column, wanted = lines[0].split().index("PID"), {str(number) for number in numbers}
    return "\n".join([lines[0], *(line for line in lines[1:] if line.split()[column] in wanted)]) + "\n"


def features() -> dict[str, Any]:
    """What this runtime knows, in the words of the specification."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(specs.HOOKS),
        "mountOptions": mounts.options(),
        "linux": {
            "namespaces": sorted(specs.NAMESPACES),
            "capabilities": list(capability.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {"enabled": True, **seccomp.vocabulary()},
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.shoal.machine": MACHINE},
    }


def example() -> dict[str, Any]:
    """A configuration to begin with: a shell in a root file system beside it."""

    def mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": kind, "options": list(options)}

    hidden = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi"
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _DEFAULT_CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "shoal",
        "mounts": [
            mount("/proc", "proc"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [*(f"/proc/{name}" for name in hidden.split()), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }


def printed(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
