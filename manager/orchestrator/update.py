"""Rolling update: bringing a service's places to its present spec, `parallelism` at a time, `delay` between.

How far an update is follows from the tasks: a place that had another version and has a present one is *under way*
until that one runs, and *rests* for the delay after. So a new leader goes on where the last one stopped, and an
update whose tasks do not come up stops by itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import msgspec

from manager.control.action import Action, change, touched
from manager.control.controller import Decision, Mint, earliest, over_at_ns
from manager.orchestrator import restart
from manager.orchestrator.place import fill, outdated
from manager.orchestrator.slot import Slot, new_task, running, told, wanted
from manager.store.view import View
from shoal.model.container import RestartPolicy
from shoal.model.network import Port, PublishMode
from shoal.model.service import Placement, Service, ServiceSpec, TaskSpec, UpdateOrder
from shoal.model.task import Task, TaskState

# Places that are begun in one decision; the others follow when these are written.
_AT_ONCE = 1000


def restarts(old: ServiceSpec, new: ServiceSpec) -> bool:
    """Whether a task of `old` must be replaced to be one of `new`. Where tasks may run and what follows their end
    is not in them; that they are on the ingress network, and the ports of their hosts that they hold, are."""
    return _contained(old) != _contained(new)


def adopt(service: Service, slots: Iterable[Slot], now_ns: int) -> Iterator[Action]:
    """Tasks of the version before which are already what the present spec says are of the present version."""
    before = service.outgoing
    if before is None or restarts(before, service.spec):
        return
    for slot in slots:
        for task in slot.tasks:
            if task.task_version == service.task_version - 1 and (wanted(task) or task is slot.newest):
                adopted = touched(task, now_ns, task_version=service.task_version)
                yield change(adopted, "the new spec asks nothing else of it")


def step(
    view: View, service: Service, slots: Sequence[Slot], stale: Iterable[Slot], now_ns: int, mint: Mint
) -> Decision:
    """The places to bring to the present version now. Those that do not run come first: there is least to lose. Of
    `stale` ones (see `places`), which come by number or node, no more are taken than have their turn."""
    dirty = sorted((slot for slot in slots if outdated(service, slot) and not slot.closed), key=_worth)
    waiting = heapq.merge(dirty, stale, key=_worth)
    first = next(waiting, None)
    if first is None:
        return Decision()
    policy = service.spec.update
    resting = [at_ns for slot in slots if (at_ns := _rests_until_ns(service, slot, now_ns)) and at_ns > now_ns]
    busy = len(resting) + sum(1 for slot in slots if _under_way(service, slot, now_ns))
    room = _AT_ONCE if policy.parallelism == 0 else min(_AT_ONCE, max(0, policy.parallelism - busy))
    actions: list[Action] = []
    for slot in chain((first,), waiting):
        if room == 0:
            break
        if found := _replace(view, service, slot, now_ns, mint):
            actions += found
            room -= 1
    return Decision(tuple(actions), earliest(*resting))


def _worth(slot: Slot) -> tuple[bool, int, str]:
    """What has least to lose comes first."""
    return (any(running(task) for task in slot.wanted), slot.number, slot.node_id)


def _replace(view: View, service: Service, slot: Slot, now_ns: int, mint: Mint) -> list[Action]:
    if service.spec.update.order == UpdateOrder.START_FIRST:
        # One that was started already and has ended is under the restart policy, like any other.
        return [] if restart.over(service, slot, now_ns) else [fill(view, service, slot, now_ns, mint)]
    (*others, last) = slot.wanted
    reason = f"version {service.task_version} takes its place"
    next_task = new_task(
        view, service, slot, id=mint(), now_ns=now_ns, desired=TaskState.READY, reason=reason, after=last
    )
    return [told(task, TaskState.SHUTDOWN, now_ns, reason) for task in (*others, last)] + [next_task]


def _present(service: Service, slot: Slot) -> Task | None:
    """The wanted task of the present version in a place that had another one before."""
    if all(task.task_version == service.task_version for task in slot.tasks):
        return None
    return next((task for task in slot.wanted if task.task_version == service.task_version), None)


def _under_way(service: Service, slot: Slot, now_ns: int) -> bool:
    present = _present(service, slot)
    if present is not None:
        return not running(present)
    # Vacant between two tries of the present version.
    versions = [task.task_version for task in slot.tasks]
    tried = bool(versions) and not slot.wanted and versions[-1] == service.task_version != versions[0]
    return tried and not restart.over(service, slot, now_ns)


def _rests_until_ns(service: Service, slot: Slot, now_ns: int) -> int:
    present = _present(service, slot)
    if present is None or not running(present):
        return 0
    return over_at_ns(present.since_ns(now_ns), service.spec.update.delay_ns, now_ns)


def _contained(spec: ServiceSpec) -> tuple[TaskSpec, tuple[Port, ...], bool]:
    task = msgspec.structs.replace(spec.task, placement=Placement(), restart=RestartPolicy())
    host_ports = tuple(port for port in spec.ports if port.mode == PublishMode.HOST)
    return task, host_ports, len(host_ports) < len(spec.ports)
