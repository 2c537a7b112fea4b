"""Deciders: all controllers of the control loop, in the order in which a change passes them; and what `finish`es their
actions before they are written."""

from __future__ import annotations

from manager.allocator import lease
from manager.allocator import plan as allocator
from manager.ca import admission, revocation, rotation
from manager.control.controller import Controller, Finish
from manager.orchestrator import enforce, reaper, services
from manager.scheduler import plan as scheduler
from manager.scheduler.early import place_early

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
