"""Faults: what may go wrong with a host, as values with a text form, and seeded plans of them. Pure.

`kill n1 manager @0.5` happens half a second into its round; `freeze n2 agent @1 +6` lasts six seconds. A round is
faults joined by "; ": what a run prints can be given back to it. `rack` makes them happen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

# Kind → what stands between host and time, and how long it may last.
KINDS = {
    "kill": "kill -9 of one of the host's daemons",
    "freeze": "SIGSTOP of a daemon, SIGCONT at the end",
    "power": "the host loses its power, and boots at the end",
    "unplug": "its cable is out",
    "deaf": "it hears nothing of another host, which hears it; or, with a port, nothing that is sent to that port",
    "apart": "two hosts do not hear each other",
    "fill": "the disk of its data is full",
    "clock": "its clock is off by so many seconds",
    "drain": "its operator drains it, and takes it back at the end",
}
DAEMONS = ("agent", "keeper", "holder", "resolver")
MANAGING = ("manager", "etcd")
_LASTING = {
    "freeze": 8.0,
    "power": 8.0,
    "unplug": 12.0,
    "deaf": 12.0,
    "apart": 12.0,
    "fill": 10.0,
    "clock": 12.0,
    "drain": 8.0,
}
_WEIGHTS = {"kill": 6, "freeze": 3, "power": 2, "unplug": 2, "deaf": 2, "apart": 2, "fill": 2, "clock": 2, "drain": 2}
# An hour either way must not matter; after two days a certificate is none any more.
_SHIFTS = ("-3600", "3600", "-3600", "3600", "172800")
_EXPIRY = "172800"
# Where managers hear their agents, their etcd its clients, and its members each other.
SESSIONS, CLIENTS, PEERS = "2377", "2379", "2380"
_HARMLESS_S = 3600
_WITHIN_S = 3.0


class Fault(NamedTuple):
    """`what` is the daemon, the other host (and a port) or the shift; `at_s` counts from the round's begin."""

    kind: str
    host: str
    what: str = ""
    at_s: float = 0.0
    for_s: float = 0.0

    @property
    def other(self) -> str:
        """The other host."""
        return self.what.partition(":")[0]

    @property
    def port(self) -> str:
        return self.what.partition(":")[2]

    def __str__(self) -> str:
        words = [self.kind, self.host, self.what, f"@{self.at_s:g}", f"+{self.for_s:g}" if self.for_s else ""]
        return " ".join(word for word in words if word)


def parse(text: str) -> list[Fault]:
    """The faults of one round, from what `text_of` made."""
    faults = []
    for part in filter(None, (each.strip() for each in text.split(";"))):
        kind, host, *rest = part.split()
        times = {word[0]: float(word[1:]) for word in rest if word[0] in "@+"}
        what = next((word for word in rest if word[0] not in "@+"), "")
        if kind not in KINDS:
            raise ValueError(f"no fault is called {kind}; there are {', '.join(KINDS)}")
        faults.append(Fault(kind, host, what, times.get("@", 0.0), times.get("+", 0.0)))
    return faults


def text_of(faults: Sequence[Fault]) -> str:
    return "; ".join(str(each) for each in faults)


def round_of(chance: random.Random, hosts: Sequence[str], managers: Sequence[str]) -> list[Fault]:
    """Up to three faults that overlap, none twice the same; now and then one and the same for every manager, for most
    of them, or for every host."""
    if chance.random() < 0.15:
        most = chance.sample(list(managers), len(managers) // 2 + 1)
        choices = [(managers, "kill", "manager"), (hosts, "power", ""), (hosts, "clock", _EXPIRY), (most, "fill", "")]
        if len(managers) > 1:
            choices.append((most, "freeze", "etcd"))
        whom, kind, what = chance.choice(choices)
        return [Fault(kind, host, *_details(chance, kind, host, hosts, managers, what=what)) for host in whom]
    faults: dict[tuple[str, str, str], Fault] = {}
    for _ in range(chance.choice([1, 1, 2, 3])):
        kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        host = chance.choice(list(hosts))
        fault = Fault(kind, host, *_details(chance, kind, host, hosts, managers))
        faults[kind, host, fault.what if kind in ("kill", "freeze") else ""] = fault
    return list(faults.values())


def excused(faults: Sequence[Fault]) -> set[str]:
    """The hosts that a manager may take for dead in such a round; any other must stay ready throughout."""
    hosts: set[str] = set()
    for fault in faults:
        match fault.kind:
            case "power" | "unplug" | "fill":
                hosts.add(fault.host)
            case "kill" | "freeze" if fault.what == "agent":
                hosts.add(fault.host)
            case "clock" if abs(int(fault.what)) > _HARMLESS_S:
                hosts.add(fault.host)
            case "deaf" | "apart" if fault.port in ("", SESSIONS):
                hosts |= {fault.host, fault.other}
            case _:
                pass
    return hosts


def blind(faults: Sequence[Fault], managers: Sequence[str]) -> bool:
    """Whether the only manager is cut from hosts that live: it takes them for dead, and cannot know better."""
    cutting = (each for each in faults if each.kind in ("unplug", "clock") and each.host in managers)
    return len(managers) == 1 and any(excused([each]) for each in cutting)


def gentle(faults: Sequence[Fault]) -> bool:
    """Whether nothing happens to any container or the way to it: then every request must be answered."""
    return all(
        each.kind in ("kill", "fill", "clock", "drain")
        or each.port
        or (each.kind == "freeze" and each.what in MANAGING)
        for each in faults
    )


def hits_manager(faults: Sequence[Fault]) -> bool:
    """Whether a manager itself may be slow to answer."""
    return any(each.what in MANAGING or each.port or each.kind in ("power", "unplug", "fill") for each in faults)


def rebooted(faults: Sequence[Fault]) -> set[str]:
    """The hosts whose containers did not live through it."""
    return {each.host for each in faults if each.kind == "power"}


def drained(faults: Sequence[Fault]) -> set[str]:
    """The hosts that every task was to leave."""
    return {each.host for each in faults if each.kind == "drain"}


def _details(
    chance: random.Random, kind: str, host: str, hosts: Sequence[str], managers: Sequence[str], *, what: str = ""
) -> tuple[str, float, float]:
    """What, unless it is given, when and for how long."""
    lasting = _LASTING.get(kind, 0.0)
    what = what or _what(chance, kind, host, hosts, managers)
    return what, round(chance.uniform(0, _WITHIN_S), 1), round(chance.uniform(lasting / 4, lasting), 1)


def _what(chance: random.Random, kind: str, host: str, hosts: Sequence[str], managers: Sequence[str]) -> str:
    several = len(managers) > 1
    if kind in ("kill", "freeze"):
        # A frozen keeper holds every start on its host: what is frozen are those that others watch over.
        there = ("agent",) if kind == "freeze" else DAEMONS
        managing = ["manager", "manager", *(["etcd"] if several else [])] if host in managers else []
        return chance.choice([*there, *managing])
    if kind in ("deaf", "apart"):
        other = chance.choice([each for each in hosts if each != host])
        ports = [SESSIONS, *([CLIENTS, PEERS] if several else [])] if host in managers and kind == "deaf" else []
        port = chance.choice(["", *ports])
        return f"{other}:{port}" if port else other
    return chance.choice(_SHIFTS) if kind == "clock" else ""
