"""Leaks: what a host and the store hold, as lists of names; and the cycles of create and remove that may leave some.

Two inventories are compared once everything that a cycle made is removed. Numbers that grow and shrink by themselves
(pids, times, sizes of logs) are not in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.chaos.rack import PATTERNS, Rack
from tests.cluster.conftest import eventually

# A few come and go: connections of whoever asks right now, a warm client, cables that wait for a container.
_SLACK = 4
_WARM = 1
_LISTS = {
    "mounts": "cut -d' ' -f5 /proc/self/mountinfo",
    "cgroups": "find /sys/fs/cgroup -type d",
    "links": "ls /sys/class/net",
    "routes": "ip route show table all",
    "forwarding": "bridge fdb show",
    "firewall": "nft list ruleset",
    "namespaces": "lsns -n -t net -o COMMAND",
    "run": "find /run/shoal -mindepth 1",
    "data": "find /var/lib/shoal -mindepth 1",
}
# Journals come and go, and a few namespaces for the next containers are kept ready.
_BREATHES = (".db-wal", ".db-shm", ".db-journal", "shv")
_STORE = "import sqlite3; print(*(k for k, in sqlite3.connect('{}').execute('SELECT key FROM kv')), sep='\\n')"
_STORE_FILE = "/var/lib/shoal/manager/store.db"


def inventory(rack: Rack) -> dict[str, list[str]]:
    """What is there, by host and kind."""
    with ThreadPoolExecutor() as hosts:
        found = hosts.map(lambda host: _of(rack, host), rack.hosts)
    return {
        f"{host} {kind}": lines for host, each in zip(rack.hosts, found, strict=True) for kind, lines in each.items()
    }


def held_by(rack: Rack) -> dict[str, int]:
    """How many descriptors each daemon holds, and how many cables to containers each host has."""
    counts = {}
    for host in rack.hosts:
        counts[f"{host} veth"] = rack.lab.on(host, "ls", "/sys/class/net").stdout.count("shv")
        for daemon, pattern in PATTERNS.items():
            for pid in rack.lab.pids(host, pattern)[:1]:
                listed = rack.lab.on(host, "ls", f"/proc/{pid}/fd").stdout.split()
                counts[f"{host} {daemon}"] = len(listed)
    return counts


def grown(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """What is there now and was not."""
    left = []
    for kind, lines in after.items():
        rest = list(before.get(kind, ()))
        for line in lines:
            if line in rest:
                rest.remove(line)
            else:
                left.append(f"{kind}: {line}")
    return left


def leaking(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Who holds more than before; a daemon that was started meanwhile is not compared."""
    return [
        f"{name} has {count} and had {before[name]}"
        for name, count in after.items()
        if name in before and count > before[name] + _SLACK
    ]


def cycle(rack: Rack, number: int) -> None:
    """A service on a network of its own with a port and a volume, and a container by hand; then none of them."""
    lab, manager = rack.lab, rack.managers[0]
    host = rack.hosts[number % len(rack.hosts)]
    lab.shoal(manager, "network", "create", "-d", "overlay", f"net{number}")
    lab.shoal(
        manager, "service", "create", "-q", "--name", f"cycle{number}", "--replicas", str(len(rack.hosts)),
        "--network", f"net{number}", "-p", f"{20000 + number % 10000}:80", "--mount", "type=volume,target=/v", "web:1",
    )  # fmt: skip
    # A task that is sent before its host has its part of the new network waits for it.
    states = lab.shoal(
        manager, "service", "ps", "--no-trunc", "--format", "{{.CurrentState}}: {{.Error}}", f"cycle{number}"
    )
    assert not [each for each in states.splitlines() if each.startswith(("Failed", "Rejected"))], states
    lab.shoal(host, "run", "--rm", "-v", "/v", "-p", "0:80", "web:1", "true")
    lab.shoal(manager, "service", "rm", f"cycle{number}")
    # A network is in use as long as its service has tasks.
    eventually(
        lambda: lab.on(manager, "shoal", "network", "rm", f"net{number}").returncode == 0, what=f"net{number} removed"
    )


def nothing_grew(rack: Rack, before: dict[str, list[str]], held: dict[str, int], *, seconds: float = 30) -> list[str]:
    """What is left of it after some time to clean up; empty when all is as it was."""
    left: list[str] = []

    def clean() -> bool:
        left[:] = grown(before, inventory(rack)) + leaking(held, held_by(rack))
        return not left

    try:
        eventually(clean, seconds=seconds)
    except AssertionError:
        return left
    return []


def run(rack: Rack, cycles: int, *, disturb: Callable[[int], None] = lambda number: None) -> list[str]:
    """What `cycles` cycles leave behind. `disturb` is called before each one, with its number."""
    # Its tasks may move when the machine is too busy to hear a node: then this is about something else.
    rack.lab.shoal(rack.managers[0], "service", "scale", "steady=0")
    for number in range(_WARM):  # what is made once and stays is made now
        cycle(rack, number)
    before, held = inventory(rack), held_by(rack)
    for number in range(_WARM, _WARM + cycles):
        disturb(number)
        cycle(rack, number)
    return nothing_grew(rack, before, held)


def _of(rack: Rack, host: str) -> dict[str, list[str]]:
    script = "; ".join(f"echo '#### {kind}'; {command} 2>/dev/null" for kind, command in _LISTS.items())
    out = rack.lab.on(host, "sh", "-c", script).stdout
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in out.splitlines():
        if line.startswith("#### "):
            lines = found.setdefault(line.removeprefix("#### "), [])
        elif not any(word in line for word in _BREATHES):
            # nft fills lines with what is in a set: an element is what counts, not who stands beside it.
            lines += filter(None, map(str.strip, re.split(r"[,{}]", line)))
    if host in rack.managers and len(rack.managers) == 1:
        keys = rack.lab.on(host, "python3", "-c", _STORE.format(_STORE_FILE)).stdout.splitlines()
        found["store"] = [key for key in keys if not key.startswith("/audit/")]
    return found
