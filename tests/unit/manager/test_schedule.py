"""When a backup is due."""

from __future__ import annotations

import pytest

from manager.schedule import RETRY_NS, check, due_ns, next_ns
from shoal.errors import InvalidArgument
from shoal.model.cluster import BackupStatus

HOUR = 3600 * 10**9
# 2026-11-25 00:00 UTC
DAY = 1_795_564_800 * 10**9


@pytest.mark.parametrize(
    ("schedule", "after", "hours"),
    [
        ("6h", 5, 11),
        ("24h", 5, 29),
        ("1h30m", 5, 6.5),
        ("0 3 * * *", 1, 3),
        ("0 3 * * *", 3, 27),
        ("*/30 * * * *", 1, 1.5),
    ],
)
def test_what_a_schedule_names(schedule: str, after: int, hours: float) -> None:
    assert next_ns(schedule, DAY + after * HOUR) == DAY + int(hours * HOUR)


@pytest.mark.parametrize("schedule", ["", "6", "h", "1s", "0h", "* * *", "61 * * * *", "0 0 31 2 *", "yearly"])
def test_what_is_no_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidArgument):
        check(schedule)


def test_the_first_is_due_at_once_and_the_next_by_the_schedule() -> None:
    assert due_ns("6h", BackupStatus()) == 0
    assert due_ns("6h", BackupStatus(taken_at_ns=DAY)) == DAY + 6 * HOUR


def test_after_a_failure_the_next_try_comes_soon() -> None:
    failed = BackupStatus(taken_at_ns=DAY, failed_at_ns=DAY + 6 * HOUR, error="full")
    assert due_ns("6h", failed) == DAY + 6 * HOUR + RETRY_NS
    assert due_ns("1m", failed) == DAY + 6 * HOUR + 60 * 10**9
