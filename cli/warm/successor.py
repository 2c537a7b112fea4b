"""Successor: the warm process that a command which spoke to a daemon leaves behind for the commands to come.

`server` is what runs in it, `client` finds it.
"""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from cli.warm import client


def leave_behind() -> None:
    """Start the warm process, unless it is there. Never in the way of the command that does it."""
    with contextlib.suppress(OSError):
        path = Path(client.place())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if client.is_private(str(path.parent)) and not _answered(path):
            subprocess.Popen(
                # -P: a fork stands in its user's folder, from which nothing may be imported.
                [sys.executable, "-P", "-c", "from shoal.__main__ import warm; warm()", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )


def _answered(path: Path) -> bool:
    """Whether somebody listens there: a process that was killed leaves its socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0
