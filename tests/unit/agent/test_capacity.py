"""What a host has, by the limits of its cgroups in both of their layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.capacity import memory_bytes, nano_cpus

NONE = Path("/nonexistent")


def lay_out(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "50000 100000\n", "memory.max": "67108864\n"},
        {
            "cpu/cpu.cfs_quota_us": "50000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "67108864\n",
        },
    ],
    ids=["unified", "one per controller"],
)
def test_a_host_has_no_more_than_its_cgroups_let_it(tmp_path: Path, files: dict[str, str]) -> None:
    root = lay_out(tmp_path, files)
    assert (nano_cpus(root), memory_bytes(root)) == (500_000_000, 64 << 20)


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "max 100000\n", "memory.max": "max\n"},
        {"cpu.max": "99999900000 100000\n", "memory.max": f"{1 << 60}\n"},
        {
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    ],
    ids=["max", "more than there is", "none"],
)
def test_a_limit_that_limits_nothing_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    root = lay_out(tmp_path, files)
    assert (nano_cpus(root), memory_bytes(root)) == (nano_cpus(NONE), memory_bytes(NONE))
