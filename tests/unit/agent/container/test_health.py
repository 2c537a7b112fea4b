"""What health checks come to, by docker's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.container.health import KEPT, NO_CHECK, argv_of, judged, settled_check, wait_ns
from shoal.errors import InvalidArgument
from shoal.model.health import Health, HealthCheck, HealthResult, HealthState

SECOND = 10**9
TRUE = ("CMD-SHELL", "true")
STARTING = Health(HealthState.STARTING)


def check(**fields):
    return settled_check(HealthCheck(test=TRUE, **fields), NO_CHECK)


def after(health, codes, wanted, *, at=0):
    for number, code in enumerate(codes):
        result = HealthResult(started_at_ns=at + number * SECOND, exit_code=code)
        health = judged(health, wanted, result, started_at_ns=0)
    return health


def test_defaults_are_dockers():
    assert check() == HealthCheck(TRUE, 30 * SECOND, 30 * SECOND, 3, 0, 5 * SECOND)


@pytest.mark.parametrize(
    ("wanted", "image", "expected"),
    [
        (HealthCheck(), HealthCheck(), ()),
        (HealthCheck(), HealthCheck(test=TRUE), TRUE),
        (HealthCheck(test=("CMD", "a")), HealthCheck(test=TRUE), ("CMD", "a")),
        (HealthCheck(test=("NONE",)), HealthCheck(test=TRUE), ()),
        (HealthCheck(), HealthCheck(test=("NONE",)), ()),
        (HealthCheck(interval_ns=SECOND), HealthCheck(), ()),
    ],
)
def test_the_wish_goes_over_the_image(wanted, image, expected):
    assert settled_check(wanted, image).test == expected


def test_times_are_taken_over_one_by_one():
    found = settled_check(HealthCheck(retries=5), HealthCheck(test=TRUE, retries=1, interval_ns=SECOND))
    assert (found.retries, found.interval_ns) == (5, SECOND)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (HealthCheck(test=("ODD", "x")), "Unknown healthcheck type"),
        (HealthCheck(test=("CMD",)), "needs a command"),
        (HealthCheck(test=TRUE, interval_ns=10), "Interval in Healthcheck cannot be less than 1ms"),
        (HealthCheck(test=TRUE, start_period_ns=-1), "StartPeriod in Healthcheck cannot be less than 1ms"),
    ],
)
def test_what_is_no_check(wanted, said):
    with pytest.raises(InvalidArgument, match=said):
        settled_check(wanted, NO_CHECK)


def test_what_is_run():
    assert argv_of(HealthCheck(test=("CMD", "a", "b c"))) == ("a", "b c")
    assert argv_of(HealthCheck(test=("CMD-SHELL", "a | b"))) == ("/bin/sh", "-c", "a | b")


@pytest.mark.parametrize(
    ("codes", "state", "streak"),
    [
        ([0], HealthState.HEALTHY, 0),
        ([1, 1], HealthState.STARTING, 2),
        ([1, 1, 1], HealthState.UNHEALTHY, 3),
        ([1, -1, 2, 1], HealthState.UNHEALTHY, 4),
        ([0, 1, 1], HealthState.HEALTHY, 2),
        ([0, 1, 1, 1], HealthState.UNHEALTHY, 3),
        ([1, 1, 1, 0], HealthState.HEALTHY, 0),
    ],
)
def test_so_many_failures_in_a_row_are_too_many(codes, state, streak):
    found = after(STARTING, codes, check())
    assert (found.state, found.failing_streak) == (state, streak)


def test_what_fails_early_does_not_count():
    patient = check(start_period_ns=10 * SECOND)
    assert after(STARTING, [1] * 5, patient).failing_streak == 0
    assert after(STARTING, [1] * 3, patient, at=10 * SECOND).state == HealthState.UNHEALTHY
    # Once it was healthy the start period is over.
    assert after(STARTING, [0, 1, 1, 1], patient).state == HealthState.UNHEALTHY


def test_tests_come_faster_at_the_start():
    patient = check(start_period_ns=10 * SECOND, start_interval_ns=SECOND)
    assert wait_ns(STARTING, patient, now_ns=0, started_at_ns=0) == SECOND
    assert wait_ns(STARTING, patient, now_ns=10 * SECOND, started_at_ns=0) == 30 * SECOND
    assert wait_ns(Health(HealthState.HEALTHY), patient, now_ns=0, started_at_ns=0) == 30 * SECOND


@given(st.lists(st.sampled_from([0, 1]), max_size=20), st.integers(1, 5), st.integers(0, 10))
def test_only_the_last_are_kept_and_a_success_always_heals(codes, retries, period):
    wanted = check(retries=retries, start_period_ns=period * SECOND)
    found = after(STARTING, codes, wanted)
    assert len(found.results) == min(len(codes), KEPT)
    assert (found.state == HealthState.UNHEALTHY) <= (found.failing_streak >= retries)
    assert after(found, [0], wanted).state == HealthState.HEALTHY
