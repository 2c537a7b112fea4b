"""Child: how a program of ours is started that looks at what strangers made: `unpack`, `pack` and their like.

-I -S: neither the user's environment nor site-packages has a say in what it imports.
"""

from __future__ import annotations

import sys
from pathlib import Path

import agent
import shoal

_CODE = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from {} import main; main()"
_ROOMS = ":".join(dict.fromkeys(str(Path(each.__file__ or "").parent.parent) for each in (agent, shoal)))


def argv(module: str, *arguments: str) -> list[str]:
    """The command line that runs `main` of a module with these arguments."""
    return [sys.executable, "-I", "-S", "-c", _CODE.format(module), _ROOMS, *arguments]
