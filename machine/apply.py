"""Apply: make hosts what an inventory says, from a look at them to the last step; `look` alone is what `plan` shows.

Where there is nothing to do, one round trip per host finds that out, and nothing is locked or written. Otherwise the
hosts are locked, looked at once more, and changed; where another run has one of them, this one changes nothing at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from machine import artefact
from machine.fleet import Fleet
from machine.journal import Journal
from machine.model import Inventory, Machine, Role
from machine.provision.facts import Facts
from machine.provision.judgement import Fault, judge
from machine.provision.plan import plan
from machine.provision.step import AnyStep
from machine.record import Record, Records
from machine.run import Outcome, Runner, Tell
from shoal.clock import Clock
from shoal.errors import InvalidArgument, ShoalError


class Look(NamedTuple):
    """What was found: `unreachable` says why by machine, `steps` what is to do on those without a fault."""

    facts: dict[str, Facts]
    unreachable: dict[str, str]
    faults: list[Fault]
    steps: dict[str, list[AnyStep]]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do, and nothing in the way of it either."""
        return not (self.failed or any(self.steps.values()))

    @property
    def failed(self) -> dict[str, str]:
        """Why nothing can be done on a machine, by its name."""
        why = dict(self.unreachable)
        for fault in self.faults:
            why[fault.machine] = "; ".join(filter(None, (why.get(fault.machine, ""), fault.what)))
        return why


def look(fleet: Fleet, inventory: Inventory) -> Look:
    """Log in everywhere, ask for facts, and decide; nothing is changed."""
    errors = fleet.dial(inventory.machines)
    names = [each.name for each in inventory.machines if each.name not in errors]
    founder = inventory.founder.name
    asked = fleet.each(names, lambda name: fleet.host(name).facts(nodes=name == founder))
    facts = {name: each for name, each in asked.items() if not isinstance(each, ShoalError)}
    errors |= {name: each for name, each in asked.items() if isinstance(each, ShoalError)}
    return _decide(inventory, facts, {name: str(error) for name, error in errors.items()})


def apply(
    fleet: Fleet, inventory: Inventory, found: Look, *, records: Records, clock: Clock, owner: str, tell: Tell
) -> dict[str, Outcome]:
    """Do what a look found to do. The outcome of every machine of the inventory; only what is already as wanted is
    not touched, and has done no step. Raises Conflict, with nothing done, where another run is at work."""
    busy = [name for name, steps in found.steps.items() if steps]
    with records.held(busy, owner):
        if busy:
            found = _look_again(fleet, inventory, found, busy, owner)
        return _carry_out(fleet, inventory, found, busy, records=records, clock=clock, tell=tell)


def _carry_out(
    fleet: Fleet,
    inventory: Inventory,
    found: Look,
    busy: Collection[str],
    *,
    records: Records,
    clock: Clock,
    tell: Tell,
) -> dict[str, Outcome]:
    failed = found.failed
    steps = {name: each for name, each in found.steps.items() if each}
    _record(inventory, [name for name in busy if name in steps or name in failed], records, clock)
    outcomes = {name: Outcome(0, why) for name, why in failed.items()}
    outcomes |= Runner(fleet, records, Journal(records.journal, clock), tell=tell).run(steps, failed=failed)
    for name in busy:
        if name in outcomes and outcomes[name].failed:
            records.change(name, failed=outcomes[name].failed)
    return {each.name: outcomes.get(each.name, Outcome(0)) for each in inventory.machines}


def joining(machine: Machine, records: Records, through: str) -> Inventory:
    """The inventory of one more machine: with the manager that it is to join, or alone, as the founder of a cluster.

    `through` names a manager's machine; without it there must be one cluster at most. Raises InvalidArgument when it
    cannot be told which is meant."""
    others = [each for each in records.all() if each.machine.name != machine.name]
    managers = [each for each in others if each.machine.role is Role.MANAGER]
    chosen = [each for each in managers if through in ("", each.machine.name)]
    if through and not chosen:
        raise InvalidArgument(f"machine {through} is no manager", hint="'shoal machine ls' shows which are")
    if len({each.cluster_id for each in chosen}) > 1:
        names = ", ".join(each.machine.name for each in chosen)
        raise InvalidArgument("there are several clusters", hint=f"say --join with a manager of one: {names}")
    if not chosen:
        return Inventory((msgspec.structs.replace(machine, role=Role.MANAGER),))
    return Inventory((chosen[0].machine, machine))


def only(found: Look, names: Collection[str]) -> Look:
    """The same look, with nothing to do on other machines."""
    return found._replace(steps={name: steps if name in names else [] for name, steps in found.steps.items()})


def unfinished(inventory: Inventory, records: Records) -> Inventory:
    """The machines that the last run did not bring to its end, or never came to, and whoever is asked for them."""
    known = {each.name: records.find(each.name) for each in inventory.machines}
    left = [name for name, record in known.items() if record is None or record.unfinished]
    wanted = {*left, inventory.founder.name}
    kept = tuple(each for each in inventory.machines if each.name in wanted)
    return msgspec.structs.replace(inventory, machines=kept)


def _look_again(fleet: Fleet, inventory: Inventory, found: Look, busy: Collection[str], owner: str) -> Look:
    """With the hosts locked: what another run did meanwhile is not done twice."""
    founder = inventory.founder.name

    errors: dict[str, Facts | ShoalError] = dict(fleet.lock(busy, owner))
    there = [name for name in busy if name not in errors]
    asked = fleet.each(there, lambda name: fleet.host(name).facts(nodes=name == founder))
    facts, unreachable = dict(found.facts), dict(found.unreachable)
    for name, each in (errors | asked).items():
        if isinstance(each, ShoalError):
            facts.pop(name)
            unreachable[name] = str(each)
        else:
            facts[name] = each
    return _decide(inventory, facts, unreachable)


def _decide(inventory: Inventory, facts: dict[str, Facts], unreachable: dict[str, str]) -> Look:
    faults = judge(inventory, facts)
    bad = {each.machine for each in faults}
    good = {name: each for name, each in facts.items() if name not in bad}
    return Look(facts, unreachable, faults, plan(inventory, good, _versions(good)))


def _versions(facts: Mapping[str, Facts]) -> dict[str, str]:
    """Where one is to be installed: to name a version, all of its files are read."""
    lacking = {name: each for name, each in facts.items() if not each.kept}
    targets = {name: artefact.Target(each.python_minor, each.architecture) for name, each in lacking.items()}
    made = {target: artefact.version_for(target) for target in set(targets.values())}
    return {name: made[target] for name, target in targets.items()}


def _record(inventory: Inventory, names: Sequence[str], records: Records, clock: Clock) -> None:
    """Write down whom we are about to change."""
    for each in inventory.machines:
        if each.name in names:
            known = records.find(each.name) or Record(each, created_at_ns=clock.now_ns())
            records.save(msgspec.structs.replace(known, machine=each, doing="begin", failed=""))
