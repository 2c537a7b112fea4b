"""`machine plan` and `machine apply`: an inventory's hosts, as they are and as they should be."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.command import command, flag, switch
from cli.machine.progress import Board
from cli.machine.reach import ReachFlags, owner
from cli.output.table import layout
from shoal.clock import SystemClock

if TYPE_CHECKING:
    from machine.apply import Look
    from machine.model import Inventory
    from machine.record import Records
    from machine.run import Outcome

# Of `plan`: there is something to do, and nothing in its way.
CHANGES = 3


@command("[OPTIONS]", examples=["shoal machine plan -f machines.yaml"])
def plan(
    reach: ReachFlags,
    file: Annotated[str, flag("-f", "--file", help="Inventory of the machines")] = "machines.yaml",
) -> int:
    """Show what 'apply' would do: 0 if nothing, 3 if something, 1 if a host is not fit for it"""
    from machine.apply import look
    from machine.order import placed, unplaced

    ordered, records = _load(file), reach.records()
    inventory, missing = placed(ordered, records), unplaced(ordered, records)
    for each in missing:
        order = ordered.orders[each.name]
        print(f"{each.name}: driver {order.driver} makes its host; what is to do on it shows then")
    if not inventory.has_manager:
        for each in inventory.machines:
            print(f"{each.name}: what is to do on it shows once there is a manager's host")
        return CHANGES
    with reach.fleet(new=True) as fleet:
        found = look(fleet, inventory)
    print_plan(found)
    print_faults(found)
    if found.failed:
        return 1
    return 0 if found.empty and not missing else CHANGES


@command(
    "[OPTIONS]",
    examples=["shoal machine apply -f machines.yaml", "shoal machine apply --dry-run", "shoal machine apply --resume"],
)
def apply(
    reach: ReachFlags,
    file: Annotated[str, flag("-f", "--file", help="Inventory of the machines")] = "machines.yaml",
    dry_run: Annotated[bool, switch("--dry-run", help="Show what would be done, as 'plan' does")] = False,
    resume: Annotated[bool, switch("--resume", help="Only the machines that the last run did not finish")] = False,
) -> int:
    """Make hosts nodes of one cluster, as an inventory says; what is as wanted already is not touched"""
    if dry_run:
        return int(plan(reach, file))
    from machine.apply import apply as carry_out
    from machine.apply import look, unfinished
    from machine.run import Outcome

    inventory, records = _load(file), reach.records()
    if resume:
        inventory = unfinished(inventory, records)
    inventory, unmade = _make(reach, inventory, records)
    if not inventory.has_manager:
        return print_outcomes(unmade | {each.name: Outcome(0, "no manager has a host") for each in inventory.machines})
    with reach.fleet(new=True) as fleet:
        found = look(fleet, inventory)
        print_faults(found)
        board = Board([name for name, steps in found.steps.items() if steps], sys.stdout)
        clock = SystemClock()
        outcomes = carry_out(fleet, inventory, found, records=records, clock=clock, owner=owner(), tell=board.tell)
    return print_outcomes(outcomes | unmade)


def _make(reach: ReachFlags, inventory: Inventory, records: Records) -> tuple[Inventory, dict[str, Outcome]]:
    """The inventory with the hosts that drivers make, and what became of those that they did not."""
    from machine.order import make_all, placed, unplaced
    from machine.run import Outcome

    missing = unplaced(inventory, records)
    failed = make_all(
        inventory,
        missing,
        records=records,
        dial=reach.fleet,
        clock=SystemClock(),
        owner=owner(),
        tell=lambda text: print(text, flush=True),
    )
    return placed(inventory, records), {name: Outcome(0, f"make the host: {why}") for name, why in failed.items()}


def _load(file: str) -> Inventory:
    from machine.inventory import load

    return load(Path(file))


def print_plan(found: Look) -> None:
    """Each machine's steps, with their reasons and what they run."""
    from machine.provision.step import describe

    for name, steps in found.steps.items():
        if not steps:
            print(f"{name}: as wanted")
            continue
        print(f"{name}: {len(steps)} steps")
        for step in steps:
            print(f"  + {step.title} ({step.why})")
            for line in describe(step):
                print(f"      {line}")


def print_faults(found: Look) -> None:
    """All that is wrong with all hosts, at once."""
    for name, why in found.unreachable.items():
        print(f"{name}: {why}")
    for fault in found.faults:
        print(f"{fault.machine}: {fault.what}; {fault.hint}")


def print_outcomes(outcomes: Mapping[str, Outcome]) -> int:
    """What became of each machine; the exit code."""
    rows = [["MACHINE", "STEPS", "RESULT"]]
    for name, each in outcomes.items():
        result = f"failed: {each.failed}" if each.failed else "changed" if each.done else "as wanted"
        rows.append([name, str(each.done), result])
    print(layout(rows), end="")
    return 1 if any(each.failed for each in outcomes.values()) else 0
