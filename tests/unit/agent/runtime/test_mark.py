"""Every line is logged once, at whichever line of our code the keeper is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.runtime.mark import Mark

ROOMS = Path(__file__).parents[4]


@pytest.mark.parametrize("log", ["file", "flow", "one file", "journal"])
def test_each_line_is_logged_once_wherever_the_keeper_is_killed(log: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.unit.agent.runtime.killed", log, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOMS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_mark_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    mark = Mark(str(tmp_path / "gone" / "mark"))
    mark.begin(1, 10, b"rest", (1, 0))
    mark.landing[0] = 10
    assert mark.rests == {1: b"rest", 2: b""}
    mark.close()
