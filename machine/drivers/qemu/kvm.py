"""Whether this computer's KVM can run a virtual machine with an ordinary kernel."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_DEVICE = "/dev/kvm"
_CREATE_VM = 0xAE01  # linux/kvm.h
_EXTENSIONS = {"vmx", "svm"}


def why_not() -> str:
    """Empty if it can: a machine was made, and the processor has what KVM is for. In clouds there is a KVM without that
    (pvm), which opens and makes machines, too, but ordinary kernels do not boot in them."""
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{_DEVICE}: {error.strerror}"
    try:
        os.close(fcntl.ioctl(device, _CREATE_VM, 0))
    except OSError as error:
        return f"{_DEVICE} makes no machine: {error.strerror}"
    finally:
        os.close(device)
    if not _EXTENSIONS & _flags(Path("/proc/cpuinfo").read_text()):
        return "the processor shows no extension for virtual machines"
    return ""


def _flags(cpuinfo: str) -> set[str]:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return set(value.split())
    return set()
