"""HOME for a process whose environment has none: what the image's /etc/passwd says of its user, as runc and crun do."""

from __future__ import annotations

import os
from typing import Any

from agent.kernel import openat2

_MOST = 1 << 20  # the image is hostile: a passwd of any size, of any kind


def given(process: dict[str, Any], rootfs: str) -> dict[str, Any]:
    """The process with a HOME."""
    environment = process.get("env") or ()
    if any(item.startswith("HOME=") for item in environment):
        return process
    home = _home(rootfs, (process.get("user") or {}).get("uid", 0))
    return {**process, "env": [*environment, f"HOME={home}"]}


def _home(rootfs: str, uid: int) -> str:
    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            file = openat2.open_in_root(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK)
        finally:
            os.close(root)
    except OSError:
        return "/"
    try:
        text = os.read(file, _MOST).decode(errors="replace")
    except OSError:
        return "/"
    finally:
        os.close(file)
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid) and fields[5].startswith("/"):
            return fields[5]
    return "/"
