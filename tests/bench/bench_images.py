"""Builds, beside docker's classic builder on the same lab host, as whole command lines of a user: as they are, with the
warm process that commands leave behind; `build_cached_cold_client.vs_docker` is for who has it off (SHOAL_WARM=0).

`context.cpu_s` has no peer: what 20,000 files that did not change cost, client and agent together, beyond a build of an
empty context.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from tests.bench.bench_containers import one_host, start_docker, stop_docker
from tests.bench.row import Row, row
from tests.cluster.conftest import Lab

TIMES = 9
FILES = 20_000
DOCKERFILE = """FROM web:1
ENV A=b
COPY . /app
RUN echo one > /one
RUN cat /one > /two
WORKDIR /app
CMD ["sh"]
"""

# Runs inside the host: (milliseconds of each side, by turns).
TIMER = """
import json, os, subprocess, sys, time
sides, times = json.loads(sys.argv[1]), int(sys.argv[2])
environment = {**os.environ, "SHOAL_WARM": sys.argv[3], "DOCKER_BUILDKIT": "0"}
taken = [[] for _ in sides]
for count in range(times + 1):
    for side, argv in enumerate(sides):
        start = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        if count:
            taken[side].append((time.perf_counter() - start) * 1000)
print(json.dumps(taken))
"""
# Runs inside the host: (CPU seconds of a command line and of the agent with its children meanwhile) of each.
COUNTER = """
import json, os, resource, subprocess, sys
argv, pid, times = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
environment = {**os.environ, "SHOAL_WARM": "0"}
def agent():
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")
def own():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
taken = []
for count in range(times + 1):
    before = agent() + own()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    if count:
        taken.append(agent() + own() - before)
print(json.dumps(taken))
"""


def rows() -> list[Row]:
    with one_host() as lab:
        docker = start_docker(lab)
        disk = Path("/var/lib/shoal-lab") / lab.name / "n1" / "shoal"
        app = disk / "app"
        app.mkdir()
        (app / "Dockerfile").write_text(DOCKERFILE)
        (app / "index").write_text("x" * 1000)
        measured = [
            timed(lab, "build_cold.vs_docker", ["--no-cache"], docker),
            timed(lab, "build_cached.vs_docker", [], docker),
            timed(lab, "build_cached_cold_client.vs_docker", [], docker, warm=False),
        ]
        if docker:
            stop_docker(lab)
        return [*measured, context(lab, disk)]


def timed(lab: Lab, name: str, flags: list[str], docker: list[str], *, warm: bool = True) -> Row:
    argv = ["build", *flags, "-q", "-t", "app:1", "/var/lib/shoal/app"]
    sides = [[*engine.split(), *argv] for engine in ["shoal", *docker]]
    done = lab.on("n1", "python3", "-c", TIMER, json.dumps(sides), str(TIMES), str(int(warm)))
    assert done.returncode == 0, done.stderr
    ours, *peer = json.loads(done.stdout)
    return row(name, ours, peer[0] if peer else [], "ms")


def context(lab: Lab, disk: Path) -> Row:
    """Nothing of the files has changed since the build before."""
    for name, count in (("many", FILES), ("empty", 0)):
        folder = disk / name
        folder.mkdir()
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        for number in range(count):
            below = folder / f"d{number // 200}"
            below.mkdir(exist_ok=True)
            (below / f"f{number}").write_text(str(number))
    many, empty = (counted(lab, name) for name in ("many", "empty"))
    least = statistics.median(empty)
    return row("context.cpu_s", [each - least for each in many], [], "s")


def counted(lab: Lab, name: str) -> list[float]:
    argv = ["shoal", "build", "-q", f"/var/lib/shoal/{name}"]
    pid = next(iter(lab.pids("n1", "shoal-agent")))
    done = lab.on("n1", "python3", "-c", COUNTER, json.dumps(argv), str(pid), str(TIMES))
    assert done.returncode == 0, done.stderr
    found: list[float] = json.loads(done.stdout)
    return found
