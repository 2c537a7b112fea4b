"""The same bundles under crun, runc and shoal-runtime: what the container sees, and what the caller is told.

Differences that are meant stand in `COVERS` and `MEANT`, each with its reason; everything else has to be the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.oci.conftest import RUNTIME, Bench, Done
from tests.kernel.runtime.conftest import MASKED, READONLY

PEERS = [peer for peer in ("crun", "runc") if shutil.which(peer)]
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not PEERS, reason="neither crun nor runc is installed")]

# crun refuses hosts that have both versions of cgroups: all run where the second one is out of sight.
_ALONE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
_ALONE += ['umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]

PROBE = r"""
echo "# identity"; grep -E '^(Uid|Gid|Groups|Umask)' /proc/self/status
echo "# rights"; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
echo "# signals"; grep -E '^(SigBlk|SigIgn)' /proc/self/status
echo "# limits"; cat /proc/self/limits
echo "# environment"; env | sort
echo "# directory"; pwd
echo "# host name"; hostname; cat /proc/sys/kernel/domainname
echo "# score"; cat /proc/self/oom_score_adj
echo "# descriptors"; for fd in /proc/self/fd/*; do case $fd in */10) ;; *) echo ${fd##*/};; esac; done | head -3
echo "# mounts"; cat /proc/self/mountinfo
echo "# devices"; ls -ln /dev
echo "# links"; for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done
echo "# masked"
for p in /proc/kcore /proc/timer_list /sys/firmware /proc/acpi; do cat $p 2>/dev/null | head -c 10; ls $p; done
echo "# read-only"; for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm; do
  (echo x >$p/ || echo x >$p) 2>&1 | tail -1 | sed 's/.*: //'; done
echo "# sysctl"; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax
echo "# cgroup"; for f in memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us \
  cpuset/cpuset.cpus memory/memory.swappiness; do cat /sys/fs/cgroup/$f 2>/dev/null; done
echo "# processes"; ps -o pid,comm | tail -n +2 | head -1
echo "# session"; cut -d' ' -f5-7 /proc/1/stat
echo "# scheduling"; cut -d' ' -f18,19 /proc/self/stat
exit 7
"""
# What is looked at no closer than whether it is there, and why.
COVERS = {*MASKED, *READONLY}  # what covers them is each runtime's own business: ours is the tightest of the three
# (peer, facet, a line's end): left out, and why.
MEANT = {
    ("crun", "devices", "/proc/kcore"): "a link /dev/core that docker's containers do not have",
    ("crun", "devices", "null"): "crun gives the host's stdio to the user, and with it a device",
    ("runc", "host name", "example"): "runc 1.1 ignores domainname",
    ("runc", "host name", "(none)"): "likewise",
}


def facets(text: str) -> dict[str, list[str]]:
    """The probe's output by heading, without what no two containers have in common."""
    found: dict[str, list[str]] = {}
    for part in text.split("# ")[1:]:
        name, _, body = part.partition("\n")
        found[name] = body.splitlines()
    found["mounts"] = sorted(_mount(line) for line in found["mounts"])
    found["devices"] = sorted(" ".join([*line.split()[:4], *line.split()[-1:]]) for line in found["devices"][1:])
    return found


def _mount(line: str) -> str:
    """Where, what and how; not which device, and not the flags of a file system as a whole."""
    fields = line.split()
    place, rest = fields[4], fields[fields.index("-") + 1 :]
    if place in COVERS:
        return f"{place} is covered"
    if place.startswith("/sys/fs/cgroup"):  # of which hierarchies there are, and how tightly, each shows what it likes
        return f"cgroups are {'ro' if place.count('/') == 3 or 'ro' in fields[5].split(',') else 'rw'}"
    options = sorted(set(fields[5].split(",")) - {"relatime"})
    return f"{place} {rest[0]} {','.join(options)} {' '.join(fields[6 : fields.index('-')])}"


def _unmeant(peer: str, facet: str, lines: set[str]) -> list[str]:
    ends = [end for who, what, end in MEANT if (who, what) == (peer, facet)]
    return sorted(line for line in lines if not any(line.endswith(end) for end in ends))


class Rivals:
    def __init__(self, top: Path, layer: Path) -> None:
        self.ours = Bench(top / "shoal", layer, *_ALONE, RUNTIME)
        self.theirs = {peer: Bench(top / peer, layer, *_ALONE, peer) for peer in PEERS}

    def every(self) -> list[Bench]:
        return [self.ours, *self.theirs.values()]

    def run(self, change: Callable[[dict[str, Any]], None], *args: str) -> dict[str, Done]:
        """By runtime: the same configuration but for its cgroup."""
        found: dict[str, Done] = {}
        for name, bench in (("shoal", self.ours), *self.theirs.items()):
            config = bench.config(*args)
            change(config)
            found[name] = bench.run(config)
        return found


@pytest.fixture
def rivals(tmp_path: Path, layer: Path) -> Iterator[Rivals]:
    rivals = Rivals(tmp_path, layer)
    yield rivals
    for bench in rivals.every():
        bench.close()


def plain(config: dict[str, Any]) -> None:
    """As it is."""


def limited(config: dict[str, Any]) -> None:
    hard = os.sysconf("SC_OPEN_MAX")
    config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": min(500, hard), "hard": min(600, hard)},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    config["process"]["oomScoreAdj"] = 300
    config["linux"]["resources"] = {
        "memory": {"limit": 64 << 20, "swappiness": 10},
        "pids": {"limit": 55},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "ro"]}
    )


def confined(config: dict[str, Any]) -> None:
    names = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
    config["process"].update(
        user={"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27},
        capabilities=dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names),
        noNewPrivileges=True,
        cwd="/tmp",
        env=["PATH=/bin", "A=b=c", "EMPTY="],
    )
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}],
    }


def mounted(config: dict[str, Any]) -> None:
    config["root"]["readonly"] = True
    config["domainname"] = "example"
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "8000"}
    config["mounts"] += [
        {"destination": "/a", "type": "bind", "source": "/usr/share", "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/b", "type": "bind", "source": "/usr/share", "options": ["bind", "rslave", "noatime"]},
        {"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700", "noexec"]},
        {"destination": "/f", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"]},
    ]


@pytest.mark.parametrize("change", [plain, limited, confined, mounted], ids=lambda change: change.__name__)
def test_the_container_sees_the_same(rivals: Rivals, change: Callable[[dict[str, Any]], None]) -> None:
    def prepare(config: dict[str, Any]) -> None:
        change(config)
        for directory in ("a", "b", "c", "proc", "sys", "dev"):
            for bench in rivals.every():
                root = bench.bundle(config) / "rootfs"
                (root / directory).mkdir(exist_ok=True)
                (root / "f").touch()

    done = rivals.run(prepare, "sh", "-c", PROBE)
    assert {name: each.code for name, each in done.items()} == dict.fromkeys(done, 7), done
    ours = facets(done["shoal"].out)
    different = {
        (peer, facet): (ours_only, theirs_only)
        for peer in PEERS
        for facet, theirs in facets(done[peer].out).items()
        if any(
            (
                ours_only := _unmeant(peer, facet, set(ours[facet]) - set(theirs)),
                theirs_only := _unmeant(peer, facet, set(theirs) - set(ours[facet])),
            )
        )
    }
    assert different == {}


@pytest.mark.parametrize("args", [["true"], ["false"], ["sh", "-c", "exit 42"], ["nosuch"], ["/nosuch"], ["/etc"]])
def test_the_caller_is_told_the_same(rivals: Rivals, args: list[str]) -> None:
    codes = {name: done.code for name, done in rivals.run(plain, *args).items()}
    assert set(codes.values()) == {codes["shoal"]}, codes


def test_the_states_have_the_same_fields(rivals: Rivals) -> None:
    for bench in rivals.every():
        bench.started(bench.config("sleep", "100"))
    ours = rivals.ours.state()
    for peer, bench in rivals.theirs.items():
        theirs = bench.state()
        assert set(theirs) - set(ours) <= {"systemd-scope"}, peer  # crun's own
        for field in ("id", "status"):
            assert ours[field] == theirs[field], (peer, field)
    for words in (("start", "c"), ("delete", "c"), ("kill", "c", "KILL"), ("state", "c")):
        codes = {tuple(bench.runtime)[-3]: bench.call(*words).code for bench in rivals.every()}
        assert len(set(codes.values())) == 1, (words, codes)


def test_features_are_none_less_than_runcs(rivals: Rivals) -> None:
    if "runc" not in rivals.theirs:
        pytest.skip("runc is not installed")
    ours = json.loads(rivals.ours.call("features").out)
    theirs = json.loads(rivals.theirs["runc"].call("features").out)
    assert set(theirs["hooks"]) == set(ours["hooks"])
    assert set(theirs["linux"]["namespaces"]) <= set(ours["linux"]["namespaces"])
    assert set(theirs["mountOptions"]) - set(ours["mountOptions"]) <= {"remount", "acl", "noacl"}
