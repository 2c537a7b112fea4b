"""Describe: what this host says of itself to a manager, and which run of the host this is."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

from agent import capacity
from shoal import __version__
from shoal.model.base import Resources
from shoal.model.node import CertificateInfo, NodeDescription

_NO_CERTIFICATE = CertificateInfo()


def describe(address: str, certificate: CertificateInfo = _NO_CERTIFICATE) -> NodeDescription:
    """This host as it is now; `address` is where other hosts reach it, `certificate` how it shows who it is."""
    return NodeDescription(
        hostname=socket.gethostname(),
        os="linux",
        architecture=platform.machine(),
        kernel=platform.release(),
        agent_version=__version__,
        resources=Resources(nano_cpus=capacity.nano_cpus(), memory_bytes=capacity.memory_bytes()),
        address=address,
        certificate=certificate,
    )


def os_name() -> str:
    """ "Debian GNU/Linux 12 (bookworm)" (os-release(5))."""
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def boot_of_host() -> str:
    """A name for this run of the host: it changes exactly when everything that ran was ended.

    The kernel's boot id, and the start of pid 1: a host that is a pid namespace (a container, a host of the lab)
    reboots without its kernel doing so.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The second field of stat is the program's name in brackets, which may hold spaces (proc(5)).
    after_name = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return f"{boot}.{after_name[19]}"
