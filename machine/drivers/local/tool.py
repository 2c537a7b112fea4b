"""Tool: programs of this machine, and waiting for what has no event of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from shoal.errors import DeadlineExceeded, ShoalError, Unsupported


def run(*argv: str, stdin: str = "") -> str:
    """What it printed. Raises ShoalError with what it complained of, Unsupported where it is not installed."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unsupported(f"there is no {argv[0]} on this machine") from error
    if done.returncode:
        raise ShoalError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def wait_until(claim: Callable[[], bool], otherwise: str, *, seconds: float = 60) -> None:
    """Raises DeadlineExceeded with `otherwise`."""
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            raise DeadlineExceeded(otherwise)
        time.sleep(0.02)
