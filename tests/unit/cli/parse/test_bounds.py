"""Numbers that no field of a message holds are refused where they are read, in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cli.parse.duration import duration, moment
from cli.parse.number import INT32, INT64, integer, integer32, tail_or_all
from cli.parse.process import restart, ulimit
from cli.parse.size import cpus, size
from shoal.errors import InvalidArgument

HUGE = "9" * 30


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (integer, HUGE),
        (integer, f"-{HUGE}"),
        (integer, "9" * 5000),
        (integer, str(1 << 63)),
        (integer32, str(1 << 31)),
        (size, f"{HUGE}g"),
        (size, "9" * 5000),
        (size, str(1 << 63)),
        (cpus, HUGE),
        (duration, f"{HUGE}h"),
        (duration, "9" * 5000 + "s"),
        (moment, HUGE),
        (restart, f"on-failure:{1 << 32}"),
        (ulimit, f"nofile={HUGE}"),
    ],
)
def test_out_of_range_is_told(read: Callable[..., object], text: str) -> None:
    arguments = {"now_ns": 0} if read is moment else {}
    with pytest.raises(InvalidArgument, match=r"out of range|invalid"):
        read(text, **arguments)


def test_what_only_the_daemon_can_judge_is_read() -> None:
    assert (cpus("-1"), cpus("-.5"), cpus("+2")) == (-(10**9), -(5 * 10**8), 2 * 10**9)
    with pytest.raises(InvalidArgument, match="rational number"):
        cpus("-")
    assert [tail_or_all(text) for text in ("all", "", "x", "1.5", "-5", "7")] == [-1, -1, -1, -1, -5, 7]


def test_the_largest_values_are_read() -> None:
    assert integer(str(INT64)) == INT64
    assert integer(str(-INT64 - 1)) == -INT64 - 1
    assert integer32(str(INT32)) == INT32
    assert size("8388607t") == 8388607 << 40
    assert size(str(INT64)) == INT64  # exact: a float would round it up
    assert size("1.5k") == 1536
    assert duration("2562047h") == 2562047 * 3600 * 10**9
