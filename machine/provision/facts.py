"""Facts: what a host is, asked with one script in one round trip; nothing on the host changes by it.

The script is plain sh, so that a host without Python can say that too, and prints `key=value` lines; it starts few
programs, since with a thousand hosts that is what it costs. `judgement` says what is wrong with them, `plan` what is
still to do.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from machine.provision import layout
from machine.provision.step import Command
from shoal.errors import ShoalError
from shoal.settings import DATA_DIR, RUN_DIR

ASK_NODES = "nodes"
# The version of an agent that was started from somewhere else.
OTHER = "other"

# Both of a client's commands in one process: to start it is most of what they cost.
_INSPECT = """\
import contextlib, io, sys, shoal
from cli.app import run
ids = io.StringIO()
with contextlib.redirect_stdout(ids):
    run(["node", "ls", "-q"])
sys.exit(run(["node", "inspect", *ids.getvalue().split()]))"""

SCRIPT = f"""\
say() {{ printf '%s=%s\\n' "$1" "$2"; }}
has() {{ command -v "$1" > /dev/null 2>&1; }}
asked=$1
uid=$(id -u)
say uid "$uid"
say now "$(date +%s.%N)"
set -- $(uname -nrm)
say hostname "$1"
say kernel "$2"
say architecture "$3"
[ -r /etc/os-release ] && . /etc/os-release && say os "$PRETTY_NAME"
[ -r /etc/machine-id ] && read -r id < /etc/machine-id && say machine_id "$id"
# One that a version runs with was looked at when that was installed. Of others, the system's own comes first: what
# somebody compiled beside it can take twice the CPU time.
python=
[ -x {layout.PYTHON} ] && python=$(readlink {layout.PYTHON}) && say python "$python"
[ -n "$python" ] || for each in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
    has $each && python=$($each -IS -c 'import sys
from importlib.util import find_spec
parts = "asyncio ctypes sqlite3 ssl".split()
assert sys.version_info >= (3, 11) and all(map(find_spec, parts))
print(sys.base_prefix + "/bin/python%d.%d" % sys.version_info[:2])' 2>/dev/null) && say python "$python" && break
    python=
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then say cgroup v2
elif [ -d /sys/fs/cgroup/unified ]; then say cgroup hybrid
elif [ -d /sys/fs/cgroup/memory ]; then say cgroup v1
fi
grep -qw overlay /proc/filesystems || modprobe -n -q overlay 2>/dev/null && say overlay yes
for each in nft ip flock etcd; do has $each && say program $each; done
# Without IPv6 the last one is not there.
awk 'FILENAME ~ /udp/ && FNR > 1 {{ print "listen=udp " $2 }}
FILENAME ~ /tcp/ && $4 == "0A" {{ print "listen=tcp " $2 }}' /proc/net/udp /proc/net/tcp /proc/net/tcp6 2>/dev/null
for each in /opt /var/lib; do
    df -Pk $each | {{ read -r _; read -r _ _ _ free _; say free "$each $free"; }}
done
current=$(readlink {layout.CURRENT} 2>/dev/null)
say current "${{current##*/}}"
for each in {layout.ROOT}/*/{layout.COMPLETE}; do
    # `current` is a link to one of them.
    each=${{each%/*}}
    [ -e "$each/{layout.COMPLETE}" ] && [ ! -L "$each" ] && say installed "${{each##*/}}"
done
for each in {layout.UNIT_PATH} {layout.SCRIPT_PATH}; do
    [ -e $each ] && sha256sum < $each | {{ read -r sum _; say unit "$sum $each"; }}
done
agent= manager=
if [ -d /run/systemd/system ]; then
    say init systemd
    systemctl -q is-enabled shoal-agent 2>/dev/null && say enabled yes
    agent=$(systemctl show -p MainPID --value shoal-agent 2>/dev/null)
else
    say init script
    {layout.SCRIPT_PATH} status 2>/dev/null && read -r _ agent < {layout.PIDS}
fi
[ -e {RUN_DIR}/manager.pid ] && manager=$(tr -cd '0-9,' < {RUN_DIR}/manager.pid | cut -d, -f1)
runs() {{
    [ "${{2:-0}}" -gt 0 ] && [ -r /proc/$2/cmdline ] && say $1 "$(tr '\0' ' ' < /proc/$2/cmdline)"
}}
runs manager "$manager"
# Whoever holds the agent's own lock without being the service's process was started by hand.
if ! runs agent "$agent" && [ -e {RUN_DIR}/shoal-agent.lock ] && has flock; then
    flock -n {RUN_DIR}/shoal-agent.lock true || say agent {OTHER}
fi
if [ -e {DATA_DIR}/identity/identity.json ]; then
    # As it stands there, a string of JSON: an interpreter only to read it costs as much as all the rest.
    say certificate "$(sed -n 's/.*"certificate_pem": *\\("[^"]*"\\).*/\\1/p' {DATA_DIR}/identity/identity.json)"
fi
if [ -z "$agent" ] && [ "$uid" = 0 ] && has unshare && has ip; then
    unshare -n ip link add probe type vxlan id 1 dstport 4789 2>/dev/null && say vxlan yes || say vxlan no
fi
if [ "$asked" = {ASK_NODES} ] && [ -S {RUN_DIR}/manager.sock ]; then
    say nodes "$(SHOAL_WARM=0 {layout.PYTHON} -c '{_INSPECT}' 2>/dev/null | tr -d '\\n')"
fi
say end yes
"""


def question(*, nodes: bool) -> Command:
    """What to run on a host; `nodes` asks its manager for all nodes, too."""
    return Command(("sh", "-s", ASK_NODES if nodes else "-"), stdin=SCRIPT)


class Membership(msgspec.Struct, frozen=True):
    """Which cluster the host belongs to, by its certificate."""

    node_id: str
    cluster_id: str
    manager: bool


class Node(msgspec.Struct, frozen=True):
    """A node as its manager sees it."""

    id: str
    ready: bool
    manager: bool
    availability: str
    labels: dict[str, str]


class Facts(msgspec.Struct, frozen=True):
    """One host at one moment. `offset_s` is its clock minus ours. `current` and `running` name versions."""

    hostname: str
    root: bool
    offset_s: float
    architecture: str
    kernel: str
    os: str = ""
    machine_id: str = ""
    python: str = ""
    cgroup: str = ""
    overlay: bool = False
    vxlan: bool | None = None
    programs: frozenset[str] = frozenset()
    listening: frozenset[str] = frozenset()
    free_kib: dict[str, int] = {}
    systemd: bool = False
    current: str = ""
    installed: tuple[str, ...] = ()
    unit_sha256: str = ""
    enabled: bool = False
    agent: str = ""
    manager: str = ""
    membership: Membership | None = None
    nodes: tuple[Node, ...] | None = None

    @property
    def kept(self) -> bool:
        """Whether it has a version that stays, whatever this computer has."""
        return self.current in self.installed

    @property
    def python_minor(self) -> str:
        """Like "3.11"; empty without a Python that would do."""
        return self.python.rpartition("python")[2]


def parse(text: str, *, asked_at_s: float) -> Facts:
    """Read what the script printed; `asked_at_s` is our clock in the middle of the round trip. Raises ShoalError when
    it did not come to its end."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        said.setdefault(key, []).append(value)
    if "end" not in said:
        raise ShoalError(f"the host's answer broke off: {text[-200:]!r}")

    def one(key: str) -> str:
        return said.get(key, [""])[0]

    systemd = one("init") == "systemd"
    wanted_path = layout.UNIT_PATH if systemd else layout.SCRIPT_PATH
    units = [line.split(" ", 1) for line in said.get("unit", [])]
    return Facts(
        hostname=one("hostname"),
        root=one("uid") == "0",
        offset_s=_number(one("now")) - asked_at_s,
        architecture=one("architecture"),
        kernel=one("kernel"),
        os=one("os"),
        machine_id=one("machine_id"),
        python=one("python"),
        cgroup=one("cgroup"),
        overlay=one("overlay") == "yes",
        vxlan=one("vxlan") == "yes" if "vxlan" in said else None,
        programs=frozenset(said.get("program", [])),
        listening=frozenset(filter(None, map(_port, said.get("listen", [])))),
        free_kib={path: int(_number(size)) for path, size in (line.split(" ", 1) for line in said.get("free", []))},
        systemd=systemd,
        current=one("current"),
        installed=tuple(said.get("installed", [])),
        unit_sha256=next((sha for sha, path in units if path == wanted_path), ""),
        enabled=one("enabled") == "yes" or not systemd,
        agent=_version(one("agent")),
        manager=_version(one("manager")),
        membership=_membership(one("certificate")),
        nodes=_nodes(one("nodes")) if "nodes" in said else None,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _port(line: str) -> str:
    """`tcp 00000000:0947` (proc(5), net/tcp) as "2375/tcp"; empty for what listens on loopback alone."""
    protocol, _, where = line.partition(" ")
    address, _, port = where.partition(":")
    loopback = address in ("0100007F", "0" * 24 + "01000000")
    return "" if loopback or not port else f"{int(port, 16)}/{protocol}"


def _version(command_line: str) -> str:
    """Whose interpreter runs it: /opt/shoal/VERSION/bin/python …; OTHER for what was not installed by us."""
    if not command_line:
        return ""
    program = command_line.split(" ", 1)[0]
    return program.split("/")[3] if program.startswith(f"{layout.ROOT}/") else OTHER


def _membership(certificate: str) -> Membership | None:
    if not certificate:
        return None
    from shoal.tls import Identity  # cryptography: only where there is a certificate to read

    peer = Identity(json.loads(certificate), "", "").peer
    return Membership(peer.node_id, peer.cluster_id, peer.role.name == "MANAGER")


def _nodes(text: str) -> tuple[Node, ...]:
    """None of them where its manager did not answer."""
    documents: list[dict[str, Any]] = json.loads(text) if text else []
    return tuple(
        Node(
            each["ID"],
            each["Status"]["State"] == "ready",
            each["Spec"]["Role"] == "manager",
            each["Spec"]["Availability"],
            each["Spec"]["Labels"],
        )
        for each in documents
    )
