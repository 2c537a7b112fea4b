"""Restart: whether and when a place gets a new task after its last one is no more.

The policy has a say when a task ended by itself. A task that was told to end (its node is down or drained, its
place was given another version) is replaced at once, whatever the policy: where a service runs is ours to keep. All of
it follows from the stored tasks, so that a new leader decides the same.
"""

from __future__ import annotations

from manager.control.controller import over_at_ns
from manager.orchestrator.slot import Slot, ended_by_itself
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

# A service without a delay whose tasks end at once would be restarted a thousand times a second.
_BACKOFF_NS = 100_000_000
_BACKOFF_CAP_NS = 5_000_000_000
# What is to end and does not: after its grace and this long its place is given away.
_PATIENCE_NS = 60_000_000_000


def over(service: Service, slot: Slot, now_ns: int) -> bool:
    """Whether a vacant place is to stay so: its last task ended by itself and the policy lets it be."""
    last = slot.newest
    if last is None or last.task_version != service.task_version or not ended_by_itself(last):
        return False
    policy = service.spec.task.restart
    if policy.condition == RestartCondition.NONE:
        return True
    if policy.condition == RestartCondition.ON_FAILURE and last.status.state == TaskState.COMPLETE:
        return True
    return 0 < policy.max_attempts <= _attempts(slot, last, policy, now_ns)


def delay_ns(service: Service, slot: Slot, after: Task | None) -> int:
    """How long the task that follows `after` waits before it runs; nothing, if its place was left vacant so long."""
    if after is None or after.status.state == TaskState.REJECTED:
        return 0
    return _pause_ns(service, slot, after)


def vacant_until_ns(service: Service, slot: Slot, now_ns: int) -> int:
    """Until when a vacant place stays so. The next task is made at once and prepares while it waits, unless the last
    one could not be prepared: the next could not either."""
    last = slot.newest
    if last is None or last.status.state != TaskState.REJECTED:
        return 0
    pause_ns = _pause_ns(service, slot, last)
    return over_at_ns(last.since_ns(now_ns), pause_ns, now_ns) if pause_ns else 0


def _pause_ns(service: Service, slot: Slot, after: Task) -> int:
    """What the policy says, or the back-off where that is longer; nothing after a task that was told to end."""
    if after.task_version != service.task_version or not ended_by_itself(after):
        return 0
    ended = 0
    for task in reversed(slot.tasks[: slot.tasks.index(after) + 1]):
        if not ended_by_itself(task):
            break
        ended += 1
    backoff = min(_BACKOFF_NS << (ended - 2), _BACKOFF_CAP_NS) if ended > 1 else 0
    return max(service.spec.task.restart.delay_ns, backoff)


def release_at_ns(service: Service, slot: Slot, waiting: Task, now_ns: int, *, held: bool) -> int:
    """When a task that was made with desired READY may run: after its delay; and while its place is `held` by one
    that is still ending, not before that one's patience is over (its end is an event, and asks again)."""
    made_ns = waiting.meta.created_at_ns
    earliest = over_at_ns(made_ns, delay_ns(service, slot, slot.before(waiting)), now_ns)
    if not held:
        return earliest
    patience_ns = service.spec.task.container.stop_grace_ns + _PATIENCE_NS
    return max(earliest, over_at_ns(made_ns, patience_ns, now_ns))


def history(policy: RestartPolicy, task_history: int) -> int:
    """How many finished tasks a place must keep: what the operator wants, and enough to count attempts."""
    return max(task_history, policy.max_attempts + 1 if policy.max_attempts else 0)


def _attempts(slot: Slot, last: Task, policy: RestartPolicy, now_ns: int) -> int:
    """Restarts of this version, within the window before `last` ended. A restart happens when its task is made."""
    end_ns = last.since_ns(now_ns)
    begin_ns = end_ns - policy.window_ns if policy.window_ns else 0
    count = 0
    for before, task in zip(slot.tasks, slot.tasks[1:], strict=False):
        same = before.task_version == task.task_version == last.task_version
        count += same and ended_by_itself(before) and task.meta.created_at_ns > begin_ns
    return count
