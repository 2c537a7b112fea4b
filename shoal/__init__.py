"""Shoal: one tool for containers on many Linux hosts.

This package is the ground that all rooms (`manager`, `agent`, `machine`, `cli`) share: the vocabulary
(`model/`), the wire (`v1/`, generated) and its codec, the error tree, names and ids, and a closed list of
plumbing that knows no noun. It imports none of the rooms.

An installed wheel keeps the rooms under `shoal/_rooms`, so that names like `manager` do not spill into
site-packages; importing `shoal` opens them.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"

_rooms = Path(__file__).parent / "_rooms"
if _rooms.is_dir() and str(_rooms) not in sys.path:
    sys.path.insert(0, str(_rooms))
