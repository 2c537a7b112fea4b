"""Kernel settings of this network namespace, written only where they differ (sysctl(8), ip-sysctl.rst)."""

from __future__ import annotations

from pathlib import Path

from shoal.errors import ShoalError

_ROOT = Path("/proc/sys/net/ipv4")


def forward_packets() -> None:
    """Let this host route, without which no container reaches anything."""
    _write("ip_forward", "1")


def prepare(device: str) -> None:
    """What every bridge and tunnel of ours needs. `rp_filter` loose: a VIP's answer may come in elsewhere than
    its request went out. `route_localnet`: 127.0.0.1:PORT of the host leads to containers. `send_redirects` off:
    containers must not learn a way around the host."""
    for name, value in (("rp_filter", "2"), ("route_localnet", "1"), ("send_redirects", "0")):
        _write(f"conf/{device}/{name}", value)


def _write(name: str, value: str) -> None:
    path = _ROOT / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise ShoalError(f"cannot set {path} to {value}: {error.strerror}", hint="is /proc/sys writable?") from error
