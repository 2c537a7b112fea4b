"""Task: one run of a service in one slot on one node.

A task never moves: a replacement is a new task in the same slot. Its state only rises, and so does what is
desired of it. A million of these are held in memory, so they carry ids, not specs.
"""

from __future__ import annotations

import enum

from shoal.model.base import Meta, Resources, Value
from shoal.model.network import Address, Port


class TaskState(enum.IntEnum):
    """The ladder. Up to READY a failure is REJECTED, from STARTING on it is FAILED. REMOVE is a desired state
    only; ORPHANED ends a task whose node was given up."""

    NEW = 64
    PENDING = 128
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832


class TaskStatus(Value, frozen=True):
    """What is: written by the dispatcher from the agent's reports; by the leader while the task has no node
    (`message` then says why)."""

    state: TaskState = TaskState.NEW
    message: str = ""
    error: str = ""
    at_ns: int = 0
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()


class Task(Value, frozen=True):
    """`reservations` are what the scheduler set aside for it on its node: its service may ask for others since.
    `depart_by_ns` is 0 until its node is drained: it ends when the next one of its slot runs, then at the latest."""

    meta: Meta = Meta()
    service_id: str = ""
    task_version: int = 0
    slot: int = 0
    node_id: str = ""
    desired: TaskState = TaskState.RUNNING
    status: TaskStatus = TaskStatus()
    reservations: Resources = Resources()
    depart_by_ns: int = 0

    @property
    def finished(self) -> bool:
        """Whether it runs no more and never will again."""
        return self.status.state > TaskState.RUNNING

    def since_ns(self, now_ns: int) -> int:
        """When its state was reached. Agents say so by their own clocks; what cannot be true counts as its creation."""
        at_ns = self.status.at_ns
        return at_ns if self.meta.created_at_ns <= at_ns <= now_ns else self.meta.created_at_ns
