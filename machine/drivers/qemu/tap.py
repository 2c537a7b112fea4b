"""Tap: a virtual machine's link to a bridge of this computer. It is no link that lasts: the kernel takes it away when
QEMU, which has its descriptor, ends, however that comes about (tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess

from shoal.errors import NotFound, PermissionDenied, ShoalError

_SET = 0x400454CA  # TUNSETIFF, linux/if_tun.h
_TAP, _NO_HEADER, _OFFLOAD = 0x0002, 0x1000, 0x4000
_NAME_BYTES = 16


def open_on(bridge: str) -> int:
    """A descriptor of a new tap on `bridge`, for whoever starts QEMU to give to it and close."""
    try:
        socket.if_nametoindex(bridge)
    except OSError as error:
        raise NotFound(f"there is no bridge {bridge}", hint=f"ip link add {bridge} type bridge") from error
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        # The kernel puts a number for the %d.
        asked = struct.pack(f"{_NAME_BYTES}sH22x", b"shoalvm%d", _TAP | _NO_HEADER | _OFFLOAD)
        answer = fcntl.ioctl(tap, _SET, asked)
        name = answer[:_NAME_BYTES].rstrip(b"\0").decode()
        _run("ip", "link", "set", name, "master", bridge, "up")
    except PermissionError as error:
        os.close(tap)
        raise PermissionDenied(f"to put a machine on bridge {bridge}, one must be root", hint="use sudo") from error
    except BaseException:
        os.close(tap)
        raise
    return tap


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise ShoalError(f"{' '.join(argv)}: {done.stderr.strip()}")
