"""What is written into a group's files, where the unified hierarchy has the controllers."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.runtime.cgroups.base import DeviceRule, Layout, Limits, Weight
from agent.runtime.cgroups.group import Groups
from agent.runtime.failure import Failure

WEIGHED = Limits(
    io_weight=300,
    io_weights=(Weight(8, 0, 200, 0), Weight(8, 16, 0, 50)),
    devices=(DeviceRule(True, "a", -1, -1, "rwm"),),
)


def hierarchy(top: Path, *files: str) -> Groups:
    """With a group `g` that has these files."""
    (top / "g").mkdir()
    (top / "cgroup.subtree_control").write_text("io cpu")
    for file in files:
        (top / "g" / file).touch()
    return Groups(Layout(str(top), frozenset({"io", "cpu"}), {}))


def last(top: Path, file: str) -> str:
    """What was written to it in the end: each write of ours begins anew."""
    return (top / "g" / file).read_text()


def test_the_scheduler_that_weighs_gets_weights_as_they_are(tmp_path: Path) -> None:
    hierarchy(tmp_path, "io.bfq.weight", "io.weight").create("g", WEIGHED)
    assert last(tmp_path, "io.bfq.weight") == "8:0 200"
    assert last(tmp_path, "io.weight") == ""


def test_else_they_are_converted(tmp_path: Path) -> None:
    hierarchy(tmp_path, "io.weight").create("g", WEIGHED)
    assert last(tmp_path, "io.weight") == "8:0 1920"


def test_a_kernel_without_either_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"io\.weight"):
        hierarchy(tmp_path).create("g", WEIGHED)


def test_real_time_is_nothing_of_the_unified_hierarchys(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no real-time per container"):
        hierarchy(tmp_path).create("g", Limits(realtime_runtime_us=1))
