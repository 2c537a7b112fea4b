"""The start of a warm command is what it imports, and that is next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOMS = Path(__file__).parents[4]
START = "import sys; sys.path.insert(0, sys.argv[1]); import shoal.__main__, cli.warm.client; print(*sys.modules)"


def test_the_client_imports_no_module_that_is_written_in_python() -> None:
    argv = [sys.executable, "-I", "-c"]
    bare = subprocess.run([*argv, "import sys; print(*sys.modules)"], check=True, capture_output=True, text=True)
    client = subprocess.run([*argv, START, str(ROOMS)], check=True, capture_output=True, text=True)
    more = set(client.stdout.split()) - set(bare.stdout.split())
    assert more - {"_signal", "_socket", "gc"} == {
        "shoal",
        "shoal.__main__",
        "cli",
        "cli.warm",
        "cli.warm.client",
    }
