"""Plan: what is still to do so that hosts are what the inventory says. Pure: facts in, steps out, with their reasons.

Nothing is undone: a version that runs stays until `upgrade`, labels that somebody else gave a node stay, and a host
that is not in the inventory any more is left alone. A plan for hosts that are as wanted is empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from machine.model import Inventory, Machine, Role
from machine.provision import layout
from machine.provision.facts import Facts, Node
from machine.provision.step import AnyStep, Ask, AwaitReady, Command, Execute, Join, Stage, Upload
from shoal.settings import MANAGER_PORT, RUN_DIR

# The first start of an agent reads all of it from the disk, and many hosts may be guests of one that is busy.
_START_S = 180


def plan(inventory: Inventory, facts: Mapping[str, Facts], versions: Mapping[str, str]) -> dict[str, list[AnyStep]]:
    """The steps of each machine that has facts; `versions` says by machine which version is to be installed where none
    is kept."""
    there = [each for each in inventory.machines if each.name in facts]
    via = manager_of(inventory, facts)
    nodes = {each.id: each for name in facts for each in facts[name].nodes or ()}
    return {
        each.name: [
            *_prepare(facts[each.name], versions.get(each.name, "")),
            *_belong(each, facts[each.name], via, inventory),
            *_settle(each, facts[each.name], via, nodes),
        ]
        for each in there
    }


def manager_of(inventory: Inventory, facts: Mapping[str, Facts]) -> Machine:
    """Who is asked for what only a manager can do: the first that is one, else who will be the first."""
    for each in inventory.machines:
        known = facts.get(each.name)
        if known and known.membership and known.membership.manager and known.manager:
            return each
    return inventory.founder


def _prepare(facts: Facts, wanted: str) -> Iterator[AnyStep]:
    """An agent that runs now and after every boot."""
    version = facts.current if facts.kept else wanted
    if version not in facts.installed:
        yield Upload(f"install {version}", "it is not there", Stage.PREPARE, version, facts.python, facts.architecture)
    if not facts.kept:
        why = f"current is {facts.current}" if facts.current else "nothing is current"
        yield Execute(f"make {version} current", why, Stage.PREPARE, switch(version))
    yield from service(facts)


def switch(version: str) -> tuple[Command, ...]:
    """The commands that make a version current: a link beside it, renamed over it, so that there is always one."""
    beside = f"{layout.CURRENT}.{version}"
    return (
        Command(("ln", "-sfn", version, beside)),
        Command(("mv", "-T", beside, layout.CURRENT)),
        Command(("ln", "-sf", layout.SHOAL, layout.LINK)),
    )


def service(facts: Facts) -> Iterator[AnyStep]:
    """What starts the agent, and starting it; a unit that is right is not touched."""
    content = layout.UNIT if facts.systemd else layout.SCRIPT
    path = layout.UNIT_PATH if facts.systemd else layout.SCRIPT_PATH
    if facts.unit_sha256 != hashlib.sha256(content.encode()).hexdigest():
        mode = "644" if facts.systemd else "755"
        commands = [Command(("install", "-D", "-m", mode, "/dev/stdin", path), stdin=content)]
        if facts.systemd:
            commands.append(Command(("systemctl", "daemon-reload")))
        why = "it is another one" if facts.unit_sha256 else "it is not there"
        yield Execute(f"write {path}", why, Stage.PREPARE, tuple(commands))
    if facts.systemd and not facts.enabled:
        enable = Command(("systemctl", "enable", "shoal-agent"))
        yield Execute("start the agent at every boot", "its unit is not enabled", Stage.PREPARE, (enable,))
    if not facts.systemd and not facts.unit_sha256:
        # Where update-rc.d is missing, nothing is known of what the host starts at boot.
        enable = Command(("sh", "-c", "! command -v update-rc.d > /dev/null || update-rc.d shoal-agent defaults"))
        yield Execute("start the agent at every boot", "its script is new", Stage.PREPARE, (enable,))
    if not facts.agent:
        yield Execute(
            "start the agent",
            "it does not run",
            Stage.PREPARE,
            (control(facts, "start"), await_agent(seconds=_START_S)),
        )


def control(facts: Facts, verb: str) -> Command:
    """start, stop or restart the agent, and nothing but it."""
    return Command(("systemctl", verb, "shoal-agent") if facts.systemd else (layout.SCRIPT_PATH, verb))


def await_agent(*, seconds: int = 60) -> Command:
    """Ends once the agent answers; fails with what its client says after that time."""
    ask = f"{layout.SHOAL} info"
    return until(f"[ -S {RUN_DIR}/shoal.sock ] && {ask} > /dev/null 2>&1", seconds, f"{ask} > /dev/null")


def until(condition: str, seconds: int, otherwise: str) -> Command:
    """Ask again and again whether a condition, in the language of sh, holds; in vain, the command is `otherwise`. By
    the clock, not by a count of attempts: on a busy host one may last for seconds."""
    loop = f"until {condition}; do [ $(date +%s) -lt $end ] || {{ {otherwise}; exit 1; }}; sleep 0.2; done"
    return Command(("env", "SHOAL_WARM=0", "sh", "-c", f"end=$(($(date +%s) + {seconds})); {loop}"))


def _belong(machine: Machine, facts: Facts, via: Machine, inventory: Inventory) -> Iterator[AnyStep]:
    """A node of the cluster, which is founded where there is none."""
    if facts.membership is not None:
        return
    if machine == via:
        argv = [layout.SHOAL, "swarm", "init", "--advertise-addr", machine.reached_at]
        if inventory.store != "sqlite":
            argv += ["--store", inventory.store]
        command = Command(("env", "SHOAL_WARM=0", *argv))
        yield Execute("found the cluster", "no host is a manager yet", Stage.FOUND, (command,))
        return
    managers = (f"{_bracketed(via.reached_at)}:{MANAGER_PORT}",)
    title = f"join as a {machine.role.value}"
    role = machine.role.value
    yield Join(title, "it is a node of no cluster", Stage.JOIN, via.name, role, machine.reached_at, managers)


def _settle(machine: Machine, facts: Facts, via: Machine, nodes: Mapping[str, Node]) -> Iterator[AnyStep]:
    """Role and labels as wanted, and a manager that calls it ready."""
    member = facts.membership
    node = nodes.get(member.node_id) if member else None
    manager = machine.role is Role.MANAGER
    is_manager = node.manager if node else member.manager if member else manager
    if is_manager != manager:
        verb = "promote" if manager else "demote"
        why = f"it is a {'manager' if is_manager else 'worker'}"
        yield Ask(f"{verb} the node", why, Stage.SETTLE, via.name, ("node", verb, "{node}"))
    missing = {key: value for key, value in machine.labels.items() if not node or node.labels.get(key) != value}
    if missing:
        words = tuple(word for key, value in missing.items() for word in ("--label-add", f"{key}={value}"))
        why = f"it lacks {', '.join(missing)}"
        yield Ask("label the node", why, Stage.SETTLE, via.name, ("node", "update", *words, "{node}"))
    if node is None or not node.ready:
        why = "its manager does not call it ready" if node else "its manager does not know it yet"
        yield AwaitReady("see that the node is ready", why, Stage.SETTLE, via.name)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
