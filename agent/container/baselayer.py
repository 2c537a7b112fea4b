"""The lowest layer of every container: mount points and files that docker has in any container and images may lack.

It lies below the image's layers, so an image that has its own /etc, or a link in that place, wins. One folder per
host, shared and never written to.
"""

from __future__ import annotations

import os
from pathlib import Path

_FOLDERS = ("dev", "etc", "proc", "sys")
_FILES = (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf")


def base_layer(folder: Path) -> str:
    """Make it under `folder` if it is not whole, and give its path."""
    base = folder / ".base"
    base.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in _FOLDERS:
        (base / name).mkdir(mode=0o755, exist_ok=True)
    for name in _FILES:
        (base / name).touch(mode=0o755 if name == ".dockerenv" else 0o644)
    mtab = base / "etc/mtab"
    if not os.path.lexists(mtab):
        mtab.symlink_to("/proc/mounts")
    return str(base)
