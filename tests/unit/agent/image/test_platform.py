"""Which images a machine runs."""

from __future__ import annotations

import pytest

from agent.image.platform import parse


@pytest.mark.parametrize(
    ("machine", "image", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/386", True),
        ("linux/386", "linux/amd64", False),
        ("linux/arm64", "linux/arm/v7", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/amd64", "windows/386", False),
        ("linux/riscv64", "linux/amd64", False),
    ],
)
def test_a_machine_runs_its_own_and_an_older_processors(machine: str, image: str, *, runs: bool) -> None:
    assert parse(machine).runs(parse(image)) == runs
