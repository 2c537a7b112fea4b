"""Leaks: what a host and the store hold, as lists of names.

Two inventories are compared once everything that `cycle` made is removed. Numbers that grow and shrink by themselves
(pids, times, sizes of logs) are not in them.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.chaos.rack import PATTERNS, Rack
from tests.cluster.conftest import eventually

# A few come and go: connections of whoever asks right now, a warm client, cables that wait for a container.
_SLACK = 4
_LISTS = {
    "mounts": "cut -d' ' -f5 /proc/self/mountinfo",
    "cgroups": "find /sys/fs/cgroup -type d",
    "links": "ls /sys/class/net",
    "routes": "ip route show table all",
    "forwarding": "bridge fdb show",
    "firewall": "nft list ruleset",
    "namespaces": "lsns --list -n -t net -o COMMAND",
    "run": "find /run/shoal -mindepth 1",
    "data": "find /var/lib/shoal -mindepth 1",
}
# A line for each: who holds it, and what it is; numbers of pids, sockets and containers do not matter.
_ALIKE = r"s/[0-9a-f]\{4,\}/N/g"
_HELD = "ls /sys/class/net | grep shv | sed 's/.*/veth cable/'\n" + "".join(
    f"pid=$(pgrep -f '{pattern}' | head -n1) && readlink /proc/$pid/fd/* | sed '{_ALIKE}; s/^/{daemon} /'\n"
    for daemon, pattern in PATTERNS.items()
)
# Journals come and go, and a few namespaces for the next containers are kept ready.
_BREATHES = (".db-wal", ".db-shm", ".db-journal", "/etcd/data/", "shv")
_SQLITE = "sqlite3.connect('/var/lib/shoal/manager/store.db').execute('SELECT key FROM kv')"
_ETCD = "etcdctl --endpoints https://{}:2379 --cacert root.pem --cert identity.pem --key identity.pem"
# Lines of the audit record are trimmed by age.
_BOUNDED = "/audit/"


def inventory(rack: Rack) -> dict[str, list[str]]:
    """What is there, by host and kind."""
    with ThreadPoolExecutor() as hosts:
        found = hosts.map(lambda host: _of(rack, host), rack.hosts)
    return {
        f"{host} {kind}": lines for host, each in zip(rack.hosts, found, strict=True) for kind, lines in each.items()
    }


def held_by(rack: Rack) -> dict[str, list[str]]:
    """What descriptors each daemon holds, and what cables to containers each host has."""
    held: dict[str, list[str]] = {}
    for host in rack.hosts:
        # From its input: pgrep must not find the shell by the patterns in its command line.
        done = rack.lab.on(host, "sh", "-s", stdin=_HELD)
        for line in done.stdout.splitlines():
            name, _, what = line.partition(" ")
            held.setdefault(f"{host} {name}", []).append(what)
    return {name: _without_spares(each) for name, each in held.items()}


def _without_spares(held: list[str]) -> list[str]:
    """A namespace that stands ready for the next container is held with a socket in it."""
    spares = held.count("net:[N]")
    kept = [each for each in held if each not in ("net:[N]", "socket:[N]")]
    return kept + ["socket:[N]"] * (held.count("socket:[N]") - spares)


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


def leaking(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """Who holds more than before, and what; a daemon that was started meanwhile is not compared."""
    return [
        f"{name} has {len(held)} and had {len(before[name])}: {dict(Counter(held) - Counter(before[name]))}"
        for name, held in after.items()
        if name in before and len(held) > len(before[name]) + _SLACK
    ]


def nothing_grew(
    rack: Rack, before: dict[str, list[str]], held: dict[str, list[str]], *, seconds: float = 120
) -> list[str]:
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
            lines += filter(None, map(str.strip, re.split(r"[,{}]", line.replace(" linkdown", ""))))
    if host in rack.managers:
        found["store"] = [key for key in _keys(rack, host) if key and _BOUNDED not in key]
        assert found["store"], f"the store of {host} cannot be listed"
    return found


def _keys(rack: Rack, host: str) -> list[str]:
    """Of the store, as the manager of `host` has it before it."""
    if len(rack.managers) == 1:
        script = f"import sqlite3; print(*(key for key, in {_SQLITE}), sep='\\n')"
        return rack.lab.on(host, "python3", "-c", script).stdout.splitlines()
    command = _ETCD.format(rack.lab.addresses[host])
    return rack.lab.on(
        host, "sh", "-c", f"cd /var/lib/shoal/etcd && {command} get --prefix / --keys-only"
    ).stdout.splitlines()
