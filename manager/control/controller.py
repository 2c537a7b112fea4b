"""Controller: what a decider is. Three plain things, which a module has as well as an object.

`reconcile` looks at one key of the view and returns what should change, reading no clock, minting no id, and
returning nothing once the key is as it should be. It may be called at any time and any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from manager.control.action import Action
from manager.store.mirror import MirrorEvent
from manager.store.view import View

Mint: TypeAlias = Callable[[], str]

# What has been decided beside each other, as it is to be written: the same actions in the same order.
Finish: TypeAlias = Callable[[View, Sequence[Action], int], list[Action]]


class Decision(msgspec.Struct, frozen=True):
    """`requeue_at_ns`: look at this key again then, even if nothing happens (None: no need)."""

    actions: tuple[Action, ...] = ()
    requeue_at_ns: int | None = None


NOTHING = Decision()


class Controller(Protocol):
    @property
    def name(self) -> str:
        """For logs."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of records whose events `keys_for` is asked about."""

    def keys_for(self, event: MirrorEvent, view: View) -> Iterable[str]:
        """The keys to reconcile after `event`. At the start, each record comes as an event without `old`."""

    def reconcile(self, view: View, key: str, now_ns: int, mint: Mint) -> Decision:
        """What to write for `key`. Keys of one controller are decided beside each other, from one view: no two
        may want the same record, port or address. `mint` gives fresh ids."""


def over_at_ns(begin_ns: int, length_ns: int, now_ns: int) -> int:
    """When a wait that began at `begin_ns` is over. Where that lies further ahead than the wait is long, a clock said
    so that was set back since: then nothing is left to wait for, rather than an hour."""
    return now_ns if begin_ns > now_ns + length_ns else begin_ns + length_ns


def earliest(*times: int | None) -> int | None:
    """The first of several `requeue_at_ns`."""
    return min((time for time in times if time is not None), default=None)
