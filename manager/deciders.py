"""Deciders: all controllers of the control loop, in the order in which a change passes them; what `finish`es their
actions before they are written; and what they all keep current with the view."""

from __future__ import annotations

from manager.allocator import lease
from manager.allocator import plan as allocator
from manager.allocator.unsettled import Unsettled
from manager.ca import admission, revocation, rotation
from manager.control.attachment import Attached
from manager.control.controller import Controller, Finish
from manager.orchestrator import enforce, reaper, services
from manager.orchestrator.places import Places
from manager.scheduler import plan as scheduler
from manager.scheduler.early import place_early
from manager.scheduler.load import Load
from manager.scheduler.queue import Queue
from manager.store.view import View

DECIDERS: tuple[Controller, ...] = (
    allocator,
    enforce,
    services,
    reaper,
    scheduler,
    lease,
    revocation,
    admission,
    rotation,
)
FINISH: Finish = place_early


def prepare(view: View) -> None:
    """Make the followers that deciders ask for, while `view` does not change. With a million tasks that takes seconds:
    a manager does it in a thread, before it follows the store (`Mirror.run`), and leads once the mirror has caught
    up."""
    for follower in (Attached, Load, Queue, Places, Unsettled):
        view.follower(follower)
