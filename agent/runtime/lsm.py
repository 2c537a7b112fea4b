"""Security modules that put a label on a process: whether this host has them. What is not there is refused by name."""

from __future__ import annotations

from pathlib import Path

from agent.runtime.failure import Failure
from agent.runtime.spec.process import Process


def check(process: Process) -> None:
    """Raises Failure when a label is asked for that nothing here enforces."""
    if process.apparmor and _read("/sys/module/apparmor/parameters/enabled") != "Y":
        raise _absent(f"process.apparmorProfile {process.apparmor}", "AppArmor")
    if process.selinux and not Path("/sys/fs/selinux/enforce").exists():
        raise _absent(f"process.selinuxLabel {process.selinux}", "SELinux")


def _absent(what: str, module: str) -> Failure:
    return Failure("Unsupported", f"config: {what}: this host has no {module}", "leave the label out")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
