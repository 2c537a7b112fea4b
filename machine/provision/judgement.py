"""Judgement: what keeps hosts from becoming nodes, all of it at once, from facts alone. Pure.

A host that is a node already is only judged by what may have changed since: `plan` never undoes what works.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping

import msgspec

from machine.model import Inventory, Machine, Role
from machine.provision.facts import OTHER, Facts

ARCHITECTURES = ("x86_64", "aarch64")
OLDEST_KERNEL = (5, 8)  # openat2(2) is of 5.6, and close_range(2) of 5.9 has a fallback
MOST_SKEW_S = 30.0
LEAST_FREE_KIB = {"/opt": 400 << 10, "/var/lib": 512 << 10}
_OF_WORKERS = ("2376/tcp", "4789/udp")
_OF_MANAGERS = ("2377/tcp", "2378/tcp")
_OF_ETCD = ("2379/tcp", "2380/tcp")


class Fault(msgspec.Struct, frozen=True):
    """One reason why one machine cannot be a node, and what would mend it."""

    machine: str
    what: str
    hint: str


def judge(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Fault]:
    """Every fault of every machine that answered, in the order of the inventory."""
    faults = [fault for each in inventory.machines if each.name in facts for fault in _alone(each, facts, inventory)]
    return [*faults, *_together(facts)]


def _alone(machine: Machine, all_facts: Mapping[str, Facts], inventory: Inventory) -> Iterator[Fault]:
    facts = all_facts[machine.name]

    def fault(what: str, hint: str) -> Fault:
        return Fault(machine.name, what, hint)

    if not facts.root:
        yield fault("commands do not run as root there", "let the user use sudo, or log in as root")
    if not facts.python:
        yield fault("it has no Python 3.11 or newer with its whole standard library", "install python3")
    if facts.architecture not in ARCHITECTURES:
        yield fault(f"its architecture is {facts.architecture}", f"Shoal runs on {', '.join(ARCHITECTURES)}")
    if _kernel(facts.kernel) < OLDEST_KERNEL:
        yield fault(f"its kernel is {facts.kernel}", "5.8 or newer is needed")
    if not facts.cgroup:
        yield fault("it has no cgroups at /sys/fs/cgroup", "mount cgroup2 there")
    if not facts.overlay:
        yield fault("its kernel has no overlay file system", "load or enable the module overlay")
    if facts.vxlan is False:
        yield fault("its kernel makes no VXLAN devices", "load or enable the module vxlan")
    for program, package in (("nft", "nftables"), ("ip", "iproute2"), ("flock", "util-linux")):
        if program not in facts.programs:
            yield fault(f"the program {program} is missing", f"install {package}")
    if machine.role is Role.MANAGER and inventory.store == "etcd" and "etcd" not in facts.programs:
        yield fault("the program etcd is missing, by which managers keep their state", "install etcd-server")
    if facts.agent == OTHER:
        yield fault("an agent runs there that did not come from here", "end it; its containers go on")
    if not re.fullmatch(r"[0-9a-f]{32}", facts.machine_id):
        yield fault(f'its /etc/machine-id is "{facts.machine_id}"', "make one with systemd-machine-id-setup")
    if not facts.agent:
        for port in sorted(facts.listening & set(_ports(machine, inventory))):
            yield fault(f"port {port} is in use", "end what listens there")
    for path, least in LEAST_FREE_KIB.items():
        if not facts.installed and facts.free_kib.get(path, 0) < least:
            yield fault(f"{path} has {facts.free_kib.get(path, 0) >> 10} MiB free", f"{least >> 10} MiB are needed")


def _ports(machine: Machine, inventory: Inventory) -> tuple[str, ...]:
    if machine.role is Role.WORKER:
        return _OF_WORKERS
    return (*_OF_WORKERS, *_OF_MANAGERS, *(_OF_ETCD if inventory.store == "etcd" else ()))


def _together(facts: Mapping[str, Facts]) -> Iterator[Fault]:
    """What only shows when hosts are held beside each other."""
    seen: dict[str, str] = {}
    for name, each in facts.items():
        if each.machine_id in seen:
            other = seen[each.machine_id]
            yield Fault(
                name, f"it has the machine-id of {other} ({each.machine_id})", "are they one host, or copies of one?"
            )
        seen.setdefault(each.machine_id, name)
    # With our own clock as one more witness: whoever is far from most is wrong.
    median = statistics.median([0.0, *(each.offset_s for each in facts.values())])
    for name, each in facts.items():
        away = each.offset_s - median
        if abs(away) > MOST_SKEW_S:
            word = "ahead of" if away > 0 else "behind"
            yield Fault(name, f"its clock is {abs(away):.0f} s {word} the others'", "let it follow a time server")
    clusters = {each.membership.cluster_id for each in facts.values() if each.membership}
    if len(clusters) > 1:
        for name, each in facts.items():
            if each.membership:
                yield Fault(
                    name,
                    f"it is a node of cluster {each.membership.cluster_id}, and others are of another one",
                    "have it leave there with 'shoal swarm leave'",
                )


def _kernel(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
