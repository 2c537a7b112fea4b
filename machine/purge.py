"""Purge: take a node out of its cluster, and Shoal off its host. Every step may be done again.

The order is that of least harm: tasks go elsewhere first, the cluster forgets the node, then what runs on the host
ends, and what was installed goes last.
"""

from __future__ import annotations

from collections.abc import Callable

from machine.fleet import Fleet
from machine.provision import layout
from machine.provision.facts import Facts
from machine.provision.plan import control
from machine.provision.step import Command
from machine.provision.upgrade import DRAIN_S, drained
from machine.record import Record, Records
from shoal.errors import Conflict, ShoalError
from shoal.settings import DATA_DIR, RUN_DIR

_ENDING_S = 120

# What the agent leaves running when it stops: keeper, resolver and manager are known by their command lines.
_END = f"""\
{layout.SHOAL} ps -aq | xargs -r {layout.SHOAL} rm -f > /dev/null
"""
_CLEAN = f"""\
for each in /proc/[0-9]*; do
    [ "${{each#/proc/}}" = $$ ] && continue
    case "$(readlink $each/exe 2> /dev/null) $(tr '\\0' ' ' < $each/cmdline 2> /dev/null)" in
    *{layout.ROOT}/*/bin/*) kill -9 ${{each#/proc/}} ;;
    esac
done
rm -f {layout.LINK} {layout.UNIT_PATH} {layout.SCRIPT_PATH} /etc/rc?.d/*shoal-agent
nft delete table ip shoal 2> /dev/null
for each in $(ls /sys/class/net); do
    case $each in shoal0 | shl[0-9]* | shb[0-9]* | shx[0-9]*) ip link del $each ;; esac
done
# A disk of its own may be mounted on one of them.
for each in {layout.ROOT} {DATA_DIR} {RUN_DIR}; do
    [ ! -d $each ] || find $each -mindepth 1 -delete
    rmdir $each 2> /dev/null
done
true
"""


def purge(
    fleet: Fleet, record: Record, *, manager: str, records: Records, owner: str, tell: Callable[[str], None]
) -> None:
    """Raises ShoalError where it cannot go on; `manager` names another manager's machine, or is empty for none. `tell`
    hears what is not as it should be, and does not keep it from going on."""
    name = record.machine.name
    machines = [record.machine, *([records.get(manager).machine] if manager else [])]
    for error in fleet.dial(machines).values():
        raise error
    host = fleet.host(name)
    host.lock(owner)
    facts = host.facts(nodes=False)
    records.change(name, doing="purge")
    if facts.membership and manager:
        _take_out(fleet, name, manager, facts, tell)
    elif facts.membership and _others(records, record):
        raise Conflict(f"{name} is the only manager of its cluster", hint="remove the other machines first")
    if facts.agent:
        host.run(Command(("env", "SHOAL_WARM=0", "sh", "-c", _END)), timeout_s=_ENDING_S)
        host.check(control(facts, "stop"), timeout_s=_ENDING_S)
    if facts.systemd and facts.enabled:
        host.check(Command(("systemctl", "disable", "shoal-agent")))
    host.check(Command(("sh", "-s"), stdin=_CLEAN), timeout_s=_ENDING_S)
    if facts.systemd:
        host.check(Command(("systemctl", "daemon-reload")))


def _take_out(fleet: Fleet, name: str, manager: str, facts: Facts, tell: Callable[[str], None]) -> None:
    assert facts.membership is not None
    node_id = facts.membership.node_id

    def ask(*words: str) -> None:
        fleet.host(manager).check(Command(("env", "SHOAL_WARM=0", layout.SHOAL, *words)), timeout_s=_ENDING_S)

    if facts.membership.manager:
        ask("node", "demote", node_id)
    ask("node", "update", "--availability", "drain", node_id)
    if facts.agent and fleet.host(name).run(drained(), timeout_s=_ENDING_S).code:
        tell(f"{name}: its tasks are not elsewhere after {DRAIN_S} s; they end with it")
    leave = Command(("env", "SHOAL_WARM=0", layout.SHOAL, "swarm", "leave", "--force"))
    answer = fleet.host(name).run(leave, timeout_s=_ENDING_S)
    if answer.code and facts.agent:
        raise ShoalError(f"{name} does not leave its cluster: {(answer.stderr or answer.stdout).strip()}")
    ask("node", "rm", "--force", node_id)


def _others(records: Records, record: Record) -> list[Record]:
    others = [each for each in records.all() if each.machine.name != record.machine.name]
    return [each for each in others if each.cluster_id == record.cluster_id]
