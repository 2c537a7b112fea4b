"""What the results of a health check come to: docker's rules. Pure; `agent.container.prober` runs the tests.

A container is starting until a test succeeds, or until `retries` fail in a row that count; what fails within the
start period does not. From then on the last results decide.
"""

from __future__ import annotations

import msgspec

from shoal.errors import InvalidArgument
from shoal.model.health import Health, HealthCheck, HealthResult, HealthState

KEPT = 5
OUTPUT_BYTES = 4096
_SECOND_NS = 10**9
_INTERVAL_NS, _TIMEOUT_NS, _RETRIES, _START_INTERVAL_NS = 30 * _SECOND_NS, 30 * _SECOND_NS, 3, 5 * _SECOND_NS
_SHORTEST_NS = 10**6
NONE, CMD, CMD_SHELL = "NONE", "CMD", "CMD-SHELL"
_SHELL = ("/bin/sh", "-c")
NO_CHECK = HealthCheck()


def settled_check(wanted: HealthCheck, image: HealthCheck) -> HealthCheck:
    """The wish over the image's, with every default filled in; `NO_CHECK` where there is no test.

    Raises InvalidArgument in docker's words.
    """
    test = wanted.test or image.test
    check_test(test)
    for value, name in (
        (wanted.interval_ns, "Interval"),
        (wanted.timeout_ns, "Timeout"),
        (wanted.start_period_ns, "StartPeriod"),
        (wanted.start_interval_ns, "StartInterval"),
    ):
        if value and value < _SHORTEST_NS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if not test or test[0] == NONE:
        return NO_CHECK
    return HealthCheck(
        test=test,
        interval_ns=wanted.interval_ns or image.interval_ns or _INTERVAL_NS,
        timeout_ns=wanted.timeout_ns or image.timeout_ns or _TIMEOUT_NS,
        retries=wanted.retries or image.retries or _RETRIES,
        start_period_ns=wanted.start_period_ns or image.start_period_ns,
        start_interval_ns=wanted.start_interval_ns or image.start_interval_ns or _START_INTERVAL_NS,
    )


def check_test(test: tuple[str, ...]) -> None:
    """Raises InvalidArgument for what is no test."""
    if test and test[0] not in (NONE, CMD, CMD_SHELL):
        raise InvalidArgument(f"Unknown healthcheck type {test[0]!r}", hint=f"use {NONE}, {CMD} or {CMD_SHELL}")
    if len(test) == 1 and test[0] != NONE:
        raise InvalidArgument(f"a healthcheck of type {test[0]} needs a command")


def argv_of(check: HealthCheck) -> tuple[str, ...]:
    """What is run to find out."""
    kind, *words = check.test
    return (*_SHELL, " ".join(words)) if kind == CMD_SHELL else tuple(words)


def judged(health: Health, check: HealthCheck, result: HealthResult, *, started_at_ns: int) -> Health:
    """The health after one more result, of a container that started at `started_at_ns`."""
    results = (*health.results, result)[-KEPT:]
    if result.exit_code == 0:
        return Health(state=HealthState.HEALTHY, failing_streak=0, results=results)
    excused = health.state == HealthState.STARTING and _early(check, result.started_at_ns, started_at_ns)
    streak = health.failing_streak + (0 if excused else 1)
    failed = not excused and streak >= check.retries
    return msgspec.structs.replace(
        health, state=HealthState.UNHEALTHY if failed else health.state, failing_streak=streak, results=results
    )


def wait_ns(health: Health, check: HealthCheck, *, now_ns: int, started_at_ns: int) -> int:
    """How long until the next test."""
    if health.state == HealthState.STARTING and _early(check, now_ns, started_at_ns):
        return check.start_interval_ns
    return check.interval_ns


def _early(check: HealthCheck, at_ns: int, started_at_ns: int) -> bool:
    return at_ns - started_at_ns < check.start_period_ns
