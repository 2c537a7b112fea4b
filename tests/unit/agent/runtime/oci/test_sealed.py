"""The sealed copy of the interpreter finds its way back to our code, installed or not."""

from __future__ import annotations

import subprocess
import sys


def test_a_command_goes_on_in_the_copy() -> None:
    code = "from shoal.__main__ import runtime; runtime()"
    done = subprocess.run([sys.executable, "-c", code, "run", "--nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("shoal-runtime: --nonsense is not an option")
