"""Upgrade: carry a cluster's machines from one version to another, and back where that goes wrong.

The new version is brought to all hosts first, side by side; then they are changed batch by batch. The first batch with
a host that is not well afterwards is the last: that host goes back to the version that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from machine import artefact
from machine.fleet import Fleet
from machine.journal import Journal
from machine.model import Inventory, Machine, Role
from machine.provision import upgrade as pure
from machine.provision.facts import Facts, Node
from machine.provision.plan import manager_of
from machine.provision.step import AnyStep
from machine.record import Record, Records
from machine.run import Outcome, Runner, Tell
from shoal.clock import Clock
from shoal.errors import Conflict, NotFound, ShoalError

Run = Callable[[Mapping[str, Sequence[AnyStep]]], dict[str, Outcome]]


class Course(NamedTuple):
    """What is to be done: the version that each machine shall run, by whose manager, and how carefully."""

    machines: tuple[Machine, ...]
    facts: dict[str, Facts]
    versions: dict[str, str]
    via: str
    drain: bool
    most: int


def newest(fleet: Fleet, records: Sequence[Record], *, most: str, drain: bool, owner: str) -> Course:
    """To the version that this computer has. Raises ShoalError when a machine is not well before it begins."""
    course = _course(fleet, records, most, drain, owner)
    targets = {name: artefact.Target(each.python_minor, each.architecture) for name, each in course.facts.items()}
    made = {target: artefact.version_for(target) for target in set(targets.values())}
    return course._replace(versions={name: made[target] for name, target in targets.items()})


def before(fleet: Fleet, records: Sequence[Record], *, most: str, drain: bool, owner: str) -> Course:
    """Back to the version that each machine had before. Raises NotFound where there is none."""
    course = _course(fleet, records, most, drain, owner)
    versions = {}
    for each in records:
        name = each.machine.name
        installed = course.facts[name].installed
        if each.previous not in installed:
            raise NotFound(
                f"there is no version before {course.facts[name].current} on {name}",
                hint=f"installed are {', '.join(installed)}",
            )
        versions[name] = each.previous
    return course._replace(versions=versions)


def carry_out(fleet: Fleet, course: Course, *, records: Records, clock: Clock, tell: Tell) -> dict[str, Outcome]:
    """Do it; the outcome of each machine. Those behind the first batch that failed have done nothing, and say so."""

    def run(steps: Mapping[str, Sequence[AnyStep]]) -> dict[str, Outcome]:
        return Runner(fleet, records, Journal(records.journal, clock), tell=tell).run(steps, failed={})

    outcomes = run({name: pure.prepare(each, course.versions[name]) for name, each in course.facts.items()})
    stopped = next((name for name, each in outcomes.items() if each.failed), "")
    for batch in pure.batches(course.machines, course.facts, course.most):
        if stopped:
            left = [name for name in batch if not outcomes[name].failed]
            outcomes |= {name: Outcome(0, f"not begun, because {stopped} failed") for name in left}
            continue
        for name, each in _change_batch(course, batch, records, run).items():
            outcomes[name] = Outcome(outcomes[name].done + each.done, each.failed)
            stopped = name if each.failed else stopped
    return outcomes


def _change_batch(course: Course, batch: Sequence[str], records: Records, run: Run) -> dict[str, Outcome]:
    """Change the machines of one batch; who is not well afterwards gets back what it had."""
    steps = {name: _change(course, name) for name in batch}
    outcomes = run(steps)
    for name in batch:
        facts = course.facts[name]
        if failed := outcomes[name].failed:
            undone = run({name: pure.back(facts, _node(course, name), via=course.via)})[name]
            end = f"it does not go back to {facts.current} either: {undone.failed}" if undone.failed else "it went back"
            outcomes[name] = Outcome(outcomes[name].done, f"{failed}; {end}")
            records.change(name, failed=outcomes[name].failed)
        elif steps[name]:
            records.change(name, version=course.versions[name], previous=facts.current)
    return outcomes


def _change(course: Course, name: str) -> list[AnyStep]:
    node = _node(course, name)
    return pure.change(course.facts[name], node, course.versions[name], via=course.via, drain=course.drain)


def _node(course: Course, name: str) -> Node | None:
    """The machine's node, as a manager sees it."""
    nodes = {each.id: each for one in course.facts.values() for each in one.nodes or ()}
    membership = course.facts[name].membership
    return nodes.get(membership.node_id) if membership else None


def _course(fleet: Fleet, records: Sequence[Record], most: str, drain: bool, owner: str) -> Course:
    machines = tuple(each.machine for each in records)
    if not any(each.role is Role.MANAGER for each in machines):
        raise Conflict("no manager is among these machines", hint="name one of the same cluster, too")
    allowed = pure.parse_most(most, len(machines))
    for error in fleet.dial(machines).values():
        raise error
    names = [each.name for each in machines]
    for error in fleet.lock(names, owner).values():
        raise error
    facts: dict[str, Facts] = {}
    for name, each in fleet.each(names, lambda name: fleet.host(name).facts(nodes=True)).items():
        if isinstance(each, ShoalError):
            raise each
        if each.membership is None or not each.agent:
            raise Conflict(f"{name} is no node that runs", hint=f"'shoal machine provision {name}' makes it one")
        facts[name] = each
    via = manager_of(Inventory(machines), facts).name
    return Course(machines, facts, {}, via, drain, allowed)
