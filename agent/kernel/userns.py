"""User namespaces: made by a short-lived process, since no thread of many may enter one; held by descriptors.

The process makes a network namespace with it, which only then belongs to it: root in the container has its rights on
the container's own interfaces. Nothing is bound to a path, so whoever dies, the kernel takes both back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from agent.kernel import netns
from agent.kernel import syscalls as kernel

# Nothing is imported but what ctypes needs: the process lives for two system calls.
_CODE = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).unshare(int(sys.argv[1])):
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(1, b".")
os.read(0, 1)
"""


class UserNamespace(NamedTuple):
    """`fd` holds it, `network` is a network namespace that it owns."""

    fd: int
    network: netns.Namespace

    @property
    def path(self) -> str:
        """By which a runtime on this host enters it, while this is open."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Let go of both, once."""
        os.close(self.fd)
        self.network.close()


def create(first: int, size: int) -> UserNamespace:
    """Ids 0 to `size` inside are the host's from `first` on. Raises OSError where the kernel makes none."""
    flags = str(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-E", "-c", _CODE, flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if not process.stdout.read(1):
                raise OSError(f"no user namespace can be made: {process.stderr.read().decode().strip()}")
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{process.pid}/{name}").write_text(f"0 {first} {size}\n", encoding="ascii")
            network = netns.enter(f"/proc/{process.pid}/ns/net")
            try:
                return UserNamespace(os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC), network)
            except BaseException:
                network.close()
                raise
        finally:
            process.kill()
