"""What a starting agent does with each container, whatever moment the last one died at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.container.adopt import Verdict, plan
from agent.container.record import Record, State
from agent.runtime.run import Exit, Started
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerState, ContainerStatus, RestartCondition, RestartPolicy

RUNS = Started(pid=5, started_at_ns=10)
ENDED = Exit(code=1, oom_killed=False, finished_at_ns=20)
NOW, BEFORE = "this boot", "another boot"


def verdict(
    state=ContainerState.CREATED,
    *,
    found=None,
    boot=NOW,
    policy=RestartCondition.NONE,
    stopped=False,
    auto_remove=False,
    pending=False,
    code=0,
    finished=0,
    returning=False,
):
    record = Record(
        container=Container(meta=Meta(id="c"), restart=RestartPolicy(condition=policy), auto_remove=auto_remove),
        pending=pending,
    )
    kept = State(
        status=ContainerStatus(state=state, exit_code=code, finished_at_ns=finished),
        stopped=stopped,
        boot_id=boot,
        returning=returning,
    )
    known = {"c": found} if found else {}
    return plan([(record, kept)], known, boot_id=NOW, lost=255).verdicts["c"]


def test_what_runs_is_adopted_whatever_the_state_says():
    for state in ContainerState:
        assert verdict(state, found=RUNS) == Verdict.ADOPT


def test_what_was_never_finished_is_removed_even_if_it_runs():
    assert verdict(pending=True, boot="") == Verdict.REMOVE
    assert verdict(pending=True, found=RUNS) == Verdict.REMOVE


def test_an_end_that_nobody_saw_is_settled_once():
    assert verdict(ContainerState.RUNNING, found=ENDED) == Verdict.SETTLE
    assert verdict(ContainerState.CREATED, found=ENDED, boot="") == Verdict.SETTLE
    assert verdict(ContainerState.EXITED, found=ENDED, finished=20) == Verdict.LEAVE


def test_what_went_down_with_its_host_ends_or_comes_back_by_policy():
    assert verdict(ContainerState.RUNNING, boot=BEFORE) == Verdict.END
    for policy in (RestartCondition.ANY, RestartCondition.UNLESS_STOPPED, RestartCondition.ON_FAILURE):
        assert verdict(ContainerState.RUNNING, boot=BEFORE, policy=policy) == Verdict.REVIVE


def test_what_was_stopped_by_hand_comes_back_only_with_always_and_only_after_a_boot():
    stopped = {"state": ContainerState.EXITED, "stopped": True, "code": 137}
    assert verdict(**stopped, boot=BEFORE, policy=RestartCondition.ANY) == Verdict.REVIVE
    assert verdict(**stopped, boot=BEFORE, policy=RestartCondition.UNLESS_STOPPED) == Verdict.LEAVE
    assert verdict(**stopped, boot=NOW, policy=RestartCondition.ANY) == Verdict.LEAVE


def test_what_was_never_started_stays_so():
    assert verdict(boot="", policy=RestartCondition.ANY) == Verdict.LEAVE
    assert verdict(boot="", auto_remove=True) == Verdict.LEAVE


def test_waiting_for_a_restart_goes_on():
    for found in (None, ENDED):
        assert verdict(ContainerState.RESTARTING, found=found, policy=RestartCondition.ON_FAILURE) == Verdict.REVIVE


def test_what_was_told_to_end_and_start_again_does():
    for found in (None, ENDED):
        assert verdict(ContainerState.RUNNING, found=found, returning=True, auto_remove=True) == Verdict.REVIVE
    assert verdict(ContainerState.RUNNING, found=RUNS, returning=True) == Verdict.ADOPT


@pytest.mark.parametrize("state", [ContainerState.RUNNING, ContainerState.EXITED])
def test_what_goes_when_it_ends_goes(state):
    assert verdict(state, auto_remove=True) == Verdict.REMOVE


def test_what_nobody_knows_is_an_orphan():
    planned = plan([], {"x": RUNS, "y": ENDED}, boot_id=NOW, lost=255)
    assert planned.orphans == ("x", "y")


@given(
    state=st.sampled_from(ContainerState),
    found=st.sampled_from([None, RUNS, ENDED]),
    boot=st.sampled_from(["", NOW, BEFORE]),
    policy=st.sampled_from(RestartCondition),
    stopped=st.booleans(),
    auto_remove=st.booleans(),
)
def test_never_two_of_one_and_never_against_the_policy(state, found, boot, policy, stopped, auto_remove):
    decided = verdict(
        state, found=found, boot=boot, policy=policy, stopped=stopped, auto_remove=auto_remove, finished=20
    )
    assert (decided == Verdict.ADOPT) == (found is RUNS)
    if decided == Verdict.REVIVE and state != ContainerState.RESTARTING:
        assert policy != RestartCondition.NONE
        assert boot
