"""Health: whether a container does its work, and how that is found out."""

from __future__ import annotations

import enum

from shoal.model.base import Value


class HealthCheck(Value, frozen=True):
    """`test` is ("NONE",), ("CMD", command…) or ("CMD-SHELL", line); empty in a wish: the image's, in a container:
    there is none. Zeros mean the image's, then docker's defaults."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    retries: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0


class HealthState(enum.IntEnum):
    NONE = 1
    STARTING = 2
    HEALTHY = 3
    UNHEALTHY = 4


class HealthResult(Value, frozen=True):
    """`exit_code` is -1 when the test could not be run or took too long."""

    started_at_ns: int = 0
    ended_at_ns: int = 0
    exit_code: int = 0
    output: str = ""


class Health(Value, frozen=True):
    """`results` are the last five, oldest first."""

    state: HealthState = HealthState.NONE
    failing_streak: int = 0
    results: tuple[HealthResult, ...] = ()
