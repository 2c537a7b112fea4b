"""Files that are whole or absent, and what a process that was killed leaves beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shoal.files import sweep_unfinished, write_atomic

# Dies between the writing and the renaming.
KILLED = """
import os, sys, pathlib
os.rename = lambda *_: os.kill(os.getpid(), 9)
from shoal.files import write_atomic
write_atomic(pathlib.Path(sys.argv[1]), b"new")
"""


def test_what_a_killed_write_leaves_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "record.json"
    write_atomic(kept, b"old")
    subprocess.run([sys.executable, "-c", KILLED, str(kept)], cwd=Path(__file__).parents[3])
    assert len(list(tmp_path.iterdir())) == 2, "the write was not broken off"
    sweep_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_bytes() == b"old"
