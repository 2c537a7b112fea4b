"""The plan: PENDING tasks to nodes, service by service, those that wait longest first.

One key for all, because all share the nodes. A round decides a bounded part, so that the daemon answers in between,
and asks to be called again. While something can be placed it places; when nothing can, those that are left are told
why in their status message, and are tried again whenever something changes that may help. Tasks of global services
know their node already; here it is only asked whether it has room.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.control.controller import NOTHING, Decision, Mint
from manager.scheduler.queue import Queue
from manager.scheduler.round import Round
from manager.store.mirror import MirrorEvent
from manager.store.records import Noun
from manager.store.view import View
from shoal.model.task import Task, TaskState

name = "scheduler"
kinds = frozenset({"task", "node", "service", "network", "lease"})


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    if not view.follower(Queue):
        return ()
    old, new = event.old, event.new
    if event.kind == "task" and not _concerns(old, new):
        return ()
    return ("cluster",)


def _concerns(old: Noun | None, new: Noun | None) -> bool:
    """Whether a task waits, gives room back, or has taken some the moment it was created: then those that wait may do
    so for another reason."""
    return (isinstance(new, Task) and (new.status.state == TaskState.PENDING or old is None)) or _frees(old, new)


def _frees(old: Noun | None, new: Noun | None) -> bool:
    """Whether a task gives room back: what it took once it has ended, its part of the bound per node when it is told
    to."""
    if not isinstance(old, Task) or old.finished:
        return False
    return not isinstance(new, Task) or new.finished or old.desired <= TaskState.RUNNING < new.desired


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    if not view.follower(Queue):
        return NOTHING
    round = Round(view, now_ns)
    actions = round.place()
    if not actions and not round.cut:
        actions = round.explain()
    return Decision(tuple(actions), now_ns if actions or round.cut else None)
