"""Restart policy: docker's rules, and that waits grow, are bounded and start over."""

from hypothesis import given
from hypothesis import strategies as st

from agent.container.restart import FIRST_DELAY_NS, LASTING_NS, LONGEST_DELAY_NS, Ended, after_exit, after_loss
from shoal.model.container import RestartCondition, RestartPolicy

NO = RestartPolicy()
ALWAYS = RestartPolicy(condition=RestartCondition.ANY)
UNLESS = RestartPolicy(condition=RestartCondition.UNLESS_STOPPED)
ON_FAILURE = RestartPolicy(condition=RestartCondition.ON_FAILURE)


def test_no_policy_never_restarts():
    assert not after_exit(NO, Ended(exit_code=1)).restart


def test_on_failure_restarts_only_a_failure():
    assert after_exit(ON_FAILURE, Ended(exit_code=1)).restart
    assert not after_exit(ON_FAILURE, Ended(exit_code=0)).restart


def test_on_failure_gives_up_after_its_attempts():
    policy = RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=2)
    attempts, restarts = 0, 0
    while (decision := after_exit(policy, Ended(exit_code=1, attempts=attempts))).restart:
        attempts, restarts = decision.attempts, restarts + 1
    assert restarts == 2


def test_a_run_that_lasts_its_window_is_no_failed_attempt():
    policy = RestartPolicy(condition=RestartCondition.ANY, max_attempts=1, window_ns=5)
    assert not after_exit(policy, Ended(exit_code=1, attempts=1, ran_ns=4)).restart
    assert after_exit(policy, Ended(exit_code=1, attempts=1, ran_ns=5)).attempts == 1


def test_nothing_restarts_after_a_stop_by_hand():
    for policy in (ALWAYS, UNLESS, ON_FAILURE):
        assert not after_exit(policy, Ended(exit_code=137, stopped=True)).restart


def test_waits_double_to_a_minute_and_start_over_after_a_long_run():
    waits, delay = [], 0
    for _ in range(12):
        delay = after_exit(ALWAYS, Ended(exit_code=1, delay_ns=delay)).delay_ns
        waits.append(delay)
    assert waits[:3] == [FIRST_DELAY_NS, 2 * FIRST_DELAY_NS, 4 * FIRST_DELAY_NS]
    assert waits[-1] == LONGEST_DELAY_NS
    assert after_exit(ALWAYS, Ended(exit_code=1, delay_ns=delay, ran_ns=LASTING_NS)).delay_ns == FIRST_DELAY_NS


def test_a_policys_own_wait_is_fixed():
    policy = RestartPolicy(condition=RestartCondition.ANY, delay_ns=7)
    assert after_exit(policy, Ended(exit_code=0, delay_ns=10**12)).delay_ns == 7


def test_after_a_boot_always_starts_even_what_was_stopped_and_unless_stopped_does_not():
    assert after_loss(ALWAYS, Ended(exit_code=0, stopped=True))
    assert not after_loss(UNLESS, Ended(exit_code=0, stopped=True))
    assert after_loss(UNLESS, Ended(exit_code=0))
    assert after_loss(ON_FAILURE, Ended(exit_code=255))
    assert not after_loss(NO, Ended(exit_code=255))


@given(
    condition=st.sampled_from(RestartCondition),
    attempts=st.integers(0, 50),
    most=st.integers(1, 50),
    delay=st.integers(0, 10**12),
    code=st.integers(0, 255),
    ran=st.integers(0, 10**11),
)
def test_never_more_attempts_than_allowed_and_never_a_wait_out_of_bounds(condition, attempts, most, delay, code, ran):
    policy = RestartPolicy(condition=condition, max_attempts=most)
    decision = after_exit(policy, Ended(exit_code=code, attempts=attempts, delay_ns=delay, ran_ns=ran))
    if decision.restart:
        assert decision.attempts <= most
        assert FIRST_DELAY_NS <= decision.delay_ns <= LONGEST_DELAY_NS
