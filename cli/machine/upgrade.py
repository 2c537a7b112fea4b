"""`machine upgrade` and `machine rollback`: another version on the hosts of a cluster, while its containers go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cli.command import Flags, argument, command, flag, switch
from cli.machine.apply import print_outcomes
from cli.machine.listing import find_all
from cli.machine.progress import Board
from cli.machine.reach import ReachFlags, owner
from shoal.clock import SystemClock

if TYPE_CHECKING:
    from machine.upgrade import Course


class CareFlags(Flags):
    """How carefully."""

    max_unavailable: Annotated[
        str, flag("--max-unavailable", metavar="count", help="How many workers at once, like 2 or 25%")
    ] = "1"
    drain: Annotated[
        bool, switch("--drain", help="Have each node's tasks run elsewhere before it is changed; else they go on")
    ] = False


@command("[OPTIONS] [NAME...]", examples=["shoal machine upgrade --max-unavailable 25% --drain"])
def upgrade(
    reach: ReachFlags,
    care: CareFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
) -> int:
    """Bring machines to the version of this computer, batch by batch; it stops at the first that is not well"""
    return _carry_out(reach, care, names, back=False)


@command("[OPTIONS] [NAME...]", examples=["shoal machine rollback", "shoal machine rollback n1 n3"])
def rollback(
    reach: ReachFlags,
    care: CareFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
) -> int:
    """Bring machines back to the version that they had before the last upgrade"""
    return _carry_out(reach, care, names, back=True)


def _carry_out(reach: ReachFlags, care: CareFlags, names: list[str], *, back: bool) -> int:
    from machine import upgrade as machines

    records = reach.records()
    found = find_all(records, names)
    choose = machines.before if back else machines.newest
    chosen, me = [each.machine.name for each in found], owner()
    with records.held(chosen, me), reach.fleet() as fleet:
        course: Course = choose(fleet, found, most=care.max_unavailable, drain=care.drain, owner=me)
        board = Board(chosen, sys.stdout)
        outcomes = machines.carry_out(fleet, course, records=records, clock=SystemClock(), tell=board.tell)
    return print_outcomes(outcomes)
