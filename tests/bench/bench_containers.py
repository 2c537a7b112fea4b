"""What a user waits for: whole command lines, beside docker's and podman's on the same lab host.

All engines run inside one lab host: the same network namespace, the same disk, the same noise. docker and podman are
measured where Debian's are installed (`apt-get install docker.io podman containernetworking-plugins`), each with its
default network.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.row import Row, row
from tests.cluster.conftest import Lab, eventually, web_image

TIMES = 15

# Runs inside the host: one interpreter times the command lines, so that entering the host is not measured.
TIMER = """
import json, os, subprocess, sys, time
sides, times, warm = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
environment = {**os.environ, "SHOAL_WARM": warm}
taken = [[] for _ in sides]
for count in range(times + 1):
    for side, argv in enumerate(sides):
        start = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)
        if count:
            taken[side].append((time.perf_counter() - start) * 1000)
print(json.dumps(taken))
"""


def rows() -> list[Row]:
    with one_host() as lab:
        docker, podman = start_docker(lab), prepare_podman(lab)
        for engine in ["shoal", *docker]:
            done = lab.on("n1", *engine.split(), "run", "-d", "--name", "idle", "web:1", "sleep", "100000")
            assert done.returncode == 0, done.stderr
        run_rm, exec_cli = ("run", "--rm", "web:1", "true"), ("exec", "idle", "true")
        measured = []
        for suffix, warm in (("", False), ("_warm", True)):
            peers = {"docker": docker, "podman": podman}
            measured += measure(lab, f"run_rm{suffix}", run_rm, peers, warm=warm)
            measured += measure(lab, f"exec_cli{suffix}", exec_cli, {"docker": docker}, warm=warm)
        if docker:
            stop_docker(lab)
        return measured


def measure(lab: Lab, name: str, argv: tuple[str, ...], peers: Mapping[str, Sequence[str]], *, warm: bool) -> list[Row]:
    """One row per peer, of one run. `warm`: our command lines may find a process that has everything imported
    (`cli/warm`)."""
    there = {peer: engine[0] for peer, engine in peers.items() if engine}
    sides = [[*engine.split(), *argv] for engine in ["shoal", *there.values()]]
    done = lab.on("n1", "python3", "-c", TIMER, json.dumps(sides), str(TIMES), str(int(warm)))
    assert done.returncode == 0, done.stderr
    ours, *theirs = json.loads(done.stdout)
    taken = dict(zip(there, theirs, strict=True))
    return [row(f"{name}.vs_{peer}", ours, taken.get(peer, []), "ms") for peer in peers]


@contextmanager
def one_host() -> Iterator[Lab]:
    """A lab of one host with the image web:1."""
    lab = Lab(f"b{os.getpid() % 10000}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            lab("up", "1")
            tar = web_image(Path(folder))
            disk = Path("/var/lib/shoal-lab") / lab.name / "n1" / "shoal"
            shutil.copy(tar, disk / "web.tar")
            lab.shoal("n1", "import", "-c", 'CMD ["sh", "/serve"]', "/var/lib/shoal/web.tar", "web:1")
            yield lab
        finally:
            lab("down")


DOCKER = "/usr/bin/docker -H unix:///run/docker.sock"


def start_docker(lab: Lab) -> list[str]:
    """dockerd on the host, with the same image; an empty list where it is not installed."""
    if not (Path("/usr/sbin/dockerd").exists() and Path("/usr/bin/docker").exists()):
        return []
    lab.on("n1", "sh", "-c", "dockerd --data-root /var/lib/shoal/docker -H unix:///run/docker.sock "
           "--exec-root /run/docker -p /run/docker.pid >/var/log/dockerd.log 2>&1 &")  # fmt: skip
    eventually(lambda: lab.on("n1", *DOCKER.split(), "info").returncode == 0, what="dockerd answers")
    done = lab.on("n1", *DOCKER.split(), "import", "-c", 'CMD ["sh", "/serve"]', "/var/lib/shoal/web.tar", "web:1")
    assert done.returncode == 0, done.stderr
    return [DOCKER]


# crun refuses hosts that have both versions of cgroups, and podman asks for limits above what a lab host has.
PODMAN = "/usr/local/bin/podman-alone"
_PODMAN = """#!/bin/sh
exec unshare --mount --propagation private sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null
exec podman --root /var/lib/shoal/podman --runroot /run/podman --cgroup-manager=cgroupfs --runtime=crun "$@"' - "$@"
"""
_PODMANS_LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'


def prepare_podman(lab: Lab) -> list[str]:
    """podman with the same image; an empty list where it is not installed. It has no daemon to start."""
    if not Path("/usr/bin/podman").exists():
        return []
    for path, text in ((PODMAN, _PODMAN), ("/etc/containers/containers.conf", _PODMANS_LIMITS)):
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod 755 "$1"'
        assert lab.on("n1", "sh", "-c", script, "sh", path, stdin=text).returncode == 0
    done = lab.on("n1", PODMAN, "import", "-c", 'CMD ["sh", "/serve"]', "/var/lib/shoal/web.tar", "web:1")
    assert done.returncode == 0, done.stderr
    return [PODMAN]


def stop_docker(lab: Lab) -> None:
    lab.on("n1", *DOCKER.split(), "rm", "-f", "idle")
    lab.on("n1", "sh", "-c", "kill $(cat /run/docker.pid)")
    eventually(lambda: not lab.pids("n1", "dockerd"), what="dockerd stopped")
