"""What the groups above a container are given for it to have its real-time."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.runtime.cgroups.base import Limits
from agent.runtime.cgroups.realtime import lend


def group(path: Path, runtime_us: int = 0, period_us: int = 1_000_000) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cpu.rt_runtime_us").write_text(f"{runtime_us}\n")
    (path / "cpu.rt_period_us").write_text(f"{period_us}\n")
    return path


def runtime(path: Path) -> int:
    return int((path / "cpu.rt_runtime_us").read_text().split("\n")[0])


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """With a container `shoal/one` that has a tenth."""
    group(tmp_path, 950_000)
    group(tmp_path / "shoal", 100_000)
    group(tmp_path / "shoal/one", 10_000, 100_000)
    return tmp_path


def test_parents_get_what_their_children_have_together(top: Path) -> None:
    group(top / "shoal/deep"), group(top / "shoal/deep/two")
    lend(str(top), "shoal/deep/two", Limits(realtime_runtime_us=50_000, realtime_period_us=200_000))
    assert runtime(top / "shoal/deep") == 250_000
    assert runtime(top / "shoal") == 350_000
    assert runtime(top) == 950_000


def test_who_has_enough_is_left_alone(top: Path) -> None:
    group(top / "shoal", 500_000)
    group(top / "shoal/two")
    lend(str(top), "shoal/two", Limits(realtime_runtime_us=300_000))
    assert runtime(top / "shoal") == 500_000
    group(top / "shoal", -1)
    lend(str(top), "shoal/two", Limits(realtime_runtime_us=300_000))
    assert runtime(top / "shoal") == -1


def test_what_a_container_had_before_does_not_count_twice(top: Path) -> None:
    lend(str(top), "shoal/one", Limits(realtime_runtime_us=20_000))
    assert runtime(top / "shoal") == 200_000
    lend(str(top), "shoal/one", Limits(realtime_period_us=20_000))
    assert runtime(top / "shoal") == 500_000


def test_a_part_of_a_microsecond_is_a_whole_one(top: Path) -> None:
    group(top / "shoal/two")
    lend(str(top), "shoal/two", Limits(realtime_runtime_us=1, realtime_period_us=3_000_000))
    assert runtime(top / "shoal") == 100_001
