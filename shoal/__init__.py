"""Shoal: one tool for containers on many Linux hosts.

This package is the ground that all rooms (`manager`, `agent`, `machine`, `cli`) share: the vocabulary
(`model/`), the wire (`v1/`, generated) and its codec, the error tree, names and ids, and a closed list of
plumbing that knows no noun. It imports none of the rooms.

An installed wheel keeps the rooms under `shoal/_rooms`, so that names like `manager` do not spill into
site-packages; importing `shoal` opens them.
"""

import os
import sys

__version__ = "0.1.0"

# Not pathlib: a command that runs warm imports next to nothing, and that would be half of its start.
_rooms = os.path.join(os.path.dirname(__file__), "_rooms")  # noqa: PTH118, PTH120
if os.path.isdir(_rooms) and _rooms not in sys.path:  # noqa: PTH112
    sys.path.insert(0, _rooms)
