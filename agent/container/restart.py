"""When a container that ended runs again. Pure: what happened in, what to do out; `agent.container.watch` does it.

Docker's policy: no restart after a stop by hand, waits of 100 ms that double up to a minute, and start over from
100 ms once a run lasted 10 s.
"""

from __future__ import annotations

import msgspec

from shoal.model.container import RestartCondition, RestartPolicy

_SECOND_NS = 1_000_000_000
FIRST_DELAY_NS = _SECOND_NS // 10
LONGEST_DELAY_NS = 60 * _SECOND_NS
LASTING_NS = 10 * _SECOND_NS


class Ended(msgspec.Struct, frozen=True):
    """What is known of the last run. `attempts` and `delay_ns` are what the decision before it said."""

    exit_code: int
    stopped: bool = False
    ran_ns: int = 0
    attempts: int = 0
    delay_ns: int = 0


class Decision(msgspec.Struct, frozen=True):
    restart: bool
    delay_ns: int = 0
    attempts: int = 0


def after_exit(policy: RestartPolicy, ended: Ended) -> Decision:
    """Whether to run again, after what wait, and which attempt it will be.

    A policy's own `delay_ns` is a fixed wait; a run that lasts `window_ns` is no failed attempt.
    """
    attempts = 0 if policy.window_ns and ended.ran_ns >= policy.window_ns else ended.attempts
    if ended.stopped or not _wanted(policy, ended.exit_code, attempts):
        return Decision(restart=False, attempts=attempts)
    return Decision(restart=True, delay_ns=_delay(policy, ended), attempts=attempts + 1)


def after_loss(policy: RestartPolicy, ended: Ended) -> bool:
    """Whether a container that ran when its host or this agent went down starts again, at once.

    `always` starts even what was stopped by hand, as docker's daemon does when it comes up.
    """
    if policy.condition == RestartCondition.ANY:
        return True
    return not ended.stopped and _wanted(policy, ended.exit_code, ended.attempts)


def _wanted(policy: RestartPolicy, exit_code: int, attempts: int) -> bool:
    if policy.max_attempts and attempts >= policy.max_attempts:
        return False
    if policy.condition == RestartCondition.ON_FAILURE:
        return exit_code != 0
    return policy.condition in (RestartCondition.ANY, RestartCondition.UNLESS_STOPPED)


def _delay(policy: RestartPolicy, ended: Ended) -> int:
    if policy.delay_ns:
        return policy.delay_ns
    if ended.ran_ns >= LASTING_NS or not ended.delay_ns:
        return FIRST_DELAY_NS
    return max(FIRST_DELAY_NS, min(ended.delay_ns * 2, LONGEST_DELAY_NS))
