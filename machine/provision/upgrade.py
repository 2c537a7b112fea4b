"""Upgrade: from one version to another on hosts that are nodes, batch by batch. Pure.

Containers go on throughout: what runs keeps the files that it was started from. A node takes no new tasks while it is
changed, and with `drain` its tasks go elsewhere before. Managers come first and one at a time, so that the cluster
always has those that the others speak to; then workers, as many at once as may be away.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from machine.model import Machine, Role
from machine.provision import layout
from machine.provision.facts import Facts, Node
from machine.provision.plan import await_agent, control, service, switch, until
from machine.provision.step import AnyStep, Ask, AwaitReady, Command, Execute, Stage, Upload
from shoal.errors import InvalidArgument
from shoal.settings import RUN_DIR

_REMOVAL = """\
for version in {versions}; do
    for each in /proc/[0-9]*/cmdline; do
        case "$(tr '\\0' ' ' < $each 2> /dev/null)" in *{root}/$version/*) continue 2 ;; esac
    done
    rm -rf {root}/$version
done
"""
# Shorter than what a host may be silent for.
DRAIN_S = 100


def prepare(facts: Facts, version: str) -> list[AnyStep]:
    """Bring the version to the host; nothing that runs notices."""
    if version in facts.installed:
        return []
    why = "it is not there"
    return [Upload(f"install {version}", why, Stage.PREPARE, version, facts.python, facts.architecture)]


def change(facts: Facts, node: Node | None, version: str, *, via: str, drain: bool) -> list[AnyStep]:
    """The steps of one node, in their order; none where the version runs already."""
    if facts.current == facts.agent == version and facts.manager in ("", version):
        return []
    was = node.availability if node else "active"
    steps: list[AnyStep] = []
    if was == "active":
        word = "drain" if drain else "pause"
        steps.append(_availability(word, "it is changed", via))
    if drain:
        steps.append(Execute("wait until its tasks are elsewhere", "--drain", Stage.PREPARE, (drained(),)))
    steps += swap(facts, version)
    steps.append(AwaitReady("see that the node is ready", "it was changed", Stage.PREPARE, via))
    if was == "active":
        steps.append(_availability("active", "it was before", via))
    if stale := [each for each in facts.installed if each not in (version, facts.current)]:
        why = f"{version} runs, and a rollback takes {facts.current}"
        steps.append(Execute("remove older versions", why, Stage.PREPARE, (_removal(stale),)))
    return steps


def back(facts: Facts, node: Node | None, *, via: str) -> list[AnyStep]:
    """Undo a change that went wrong: the version that ran before runs again."""
    steps = swap(facts, facts.current)
    if node is None or node.availability == "active":
        steps.append(_availability("active", "it was before", via))
    return steps


def swap(facts: Facts, version: str) -> list[AnyStep]:
    """Make a version current, and have it run: the agent, and the manager where there is one."""
    steps: list[AnyStep] = [
        Execute(f"make {version} current", f"{facts.current or 'nothing'} is", Stage.PREPARE, switch(version)),
        *(step for step in service(facts) if not step.title.startswith("start the agent")),
    ]
    restart = (control(facts, "restart"), await_agent(), _runs(version, "shoal-agent"))
    steps.append(Execute("restart the agent", f"{facts.agent or 'none'} runs", Stage.PREPARE, restart))
    if facts.manager:
        commands = (_restart_manager(), _runs(version, "shoal-manager"))
        steps.append(Execute("restart the manager", f"{facts.manager} runs", Stage.PREPARE, commands))
    return steps


def batches(machines: Sequence[Machine], facts: Mapping[str, Facts], most: int) -> list[list[str]]:
    """Who is changed together: each manager alone, then workers, at most `most` at a time."""
    managers = [each.name for each in machines if _is_manager(each, facts[each.name])]
    workers = [each.name for each in machines if each.name not in managers]
    return [*([name] for name in managers), *(workers[at : at + most] for at in range(0, len(workers), most))]


def parse_most(text: str, count: int) -> int:
    """`3` or `25%` of `count`, at least 1. Raises InvalidArgument."""
    found = re.fullmatch(r"(\d{1,6})(%?)", text, re.ASCII)
    if found is None or int(found[1]) == 0:
        raise InvalidArgument(f'"{text}" is no number of machines', hint="give one, like 2 or 25%")
    return max(1, int(found[1]) * count // 100 if found[2] else int(found[1]))


def _is_manager(machine: Machine, facts: Facts) -> bool:
    return facts.membership.manager if facts.membership else machine.role is Role.MANAGER


def _availability(word: str, why: str, via: str) -> AnyStep:
    title = "let the node take tasks again" if word == "active" else f"{word} the node"
    return Ask(title, why, Stage.PREPARE, via, ("node", "update", "--availability", word, "{node}"))


def drained() -> Command:
    """Ends once no task is left on a node that was drained; fails after DRAIN_S."""
    ask = f"{layout.SHOAL} ps -q --filter is-task=true"
    return until(f'[ -z "$({ask})" ]', DRAIN_S, "echo tasks still run there >&2")


def _removal(versions: Sequence[str]) -> Command:
    """Remove versions that nothing runs: a keeper may be of one that is long gone as an agent."""
    # As input: among the arguments of the shell, each version would be found to run.
    return Command(("sh", "-s"), stdin=_REMOVAL.format(versions=" ".join(map(shlex.quote, versions)), root=layout.ROOT))


def _restart_manager() -> Command:
    """End the manager's process, which the agent starts again; done once that answers."""
    pid = f"$(tr -cd '0-9,' < {RUN_DIR}/manager.pid | cut -d, -f1)"
    ask = f"{layout.SHOAL} node ls -q"
    wait = until(f'[ "{pid}" != $old ] && {ask} > /dev/null 2>&1', 60, f"{ask} > /dev/null")
    return Command((*wait.argv[:-1], f"old={pid}; kill $old; {wait.argv[-1]}"))


def _runs(version: str, program: str) -> Command:
    """Whether the version is what runs now, and not only what would be started next."""
    script = f"grep -qs {layout.ROOT}/{version}/bin/python.*{program} /proc/[0-9]*/cmdline"
    return Command(("sh", "-c", script))
