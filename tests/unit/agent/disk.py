"""What the disk was told of a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from agent.kernel import spread


def assert_spread(folder: Path) -> None:
    """That what is made in it is spread, on a disk that can."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout
        disk = os.fstatvfs(opened)
        # ext4 has the number of ext2.
        if kind.strip() == "ext2/ext3" and disk.f_blocks * disk.f_frsize <= spread.MOST_BYTES:
            assert spread.flags(opened) & spread.TOP
    finally:
        os.close(opened)
