"""What an operator waits for: a service over three lab hosts, from the command to the last task running; and a host
that dies, from the cut of its power until its tasks run elsewhere.

Docker Swarm stands beside in the second, on the same hosts that die at the same moment, where Debian's docker.io is
installed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.bench_containers import DOCKER
from tests.bench.row import Row, row
from tests.cluster.conftest import Lab, eventually, form_cluster, import_web, web_image

ROUNDS = 3
REPLICAS = 60
SPREAD = 6
HOSTS = ("n1", "n2", "n3")
# Ours has docker's own port on these hosts.
SWARM_PORT = 12377
SWARM_LISTENS = f"0.0.0.0:{SWARM_PORT}"


def rows() -> list[Row]:
    lab = Lab(f"b{os.getpid() % 10000}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            lab("up", "3")
            import_web(lab, Path(folder))
            form_cluster(lab)
            return [service_60(lab), node_death(lab, Path(folder) / "docker")]
        finally:
            lab("down")


def service_60(lab: Lab) -> Row:
    """`service create --replicas 60` until all run. The first round, in which the image travels, does not count."""
    taken = []
    for count in range(ROUNDS + 1):
        start = time.perf_counter()
        lab.shoal("n1", "service", "create", "--name", "many", "--replicas", str(REPLICAS), "web:1", "sleep", "100000")
        if count:
            taken.append(time.perf_counter() - start)
        assert len(lab.running("many")) == REPLICAS
        lab.shoal("n1", "service", "rm", "many")
        for host in HOSTS:
            eventually(lambda host=host: not lab.shoal(host, "ps", "-aq"), what=f"nothing left on {host}")
    return row("service_60.seconds", taken, [], "s")


def node_death(lab: Lab, folder: Path) -> Row:
    """From the cut of n3's power until as many tasks as wanted run on the other two."""
    swarm = form_swarm(lab, folder)
    engines = {"shoal": lambda: len(_elsewhere(lab, "shoal"))}
    if swarm:
        engines[DOCKER] = lambda: len(_elsewhere(lab, DOCKER))
    for engine in engines:
        _on(lab, "n1", engine, "service", "create", "-d", "--name", "spread", "--replicas", str(SPREAD), "web:1",
            "sleep", "100000")  # fmt: skip
    taken: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(ROUNDS):
        for engine in engines:
            # So that n3 has its share again.
            _on(lab, "n1", engine, "service", "update", "-d", "--force", "spread")
            eventually(lambda engine=engine: _balanced(lab, engine), seconds=180, what="tasks on all hosts")
        lab("kill", "n3")
        for engine, seconds in _times_of(engines).items():
            taken[engine].append(seconds)
        lab("start", "n3")
        if swarm:
            _start_docker(lab, "n3")
        eventually(lambda: lab.node_state("n3") == "Ready", what="n3 is back")
    for engine in engines:
        _on(lab, "n1", engine, "service", "rm", "spread")
    for host in HOSTS if swarm else ():
        lab.on(host, "sh", "-c", "kill $(cat /run/docker.pid)")
        eventually(lambda host=host: not lab.pids(host, "dockerd"), what="dockerd stopped")
    return row("node_death.restored_s", taken["shoal"], taken.get(DOCKER, []), "s")


def form_swarm(lab: Lab, folder: Path) -> bool:
    """Docker Swarm of the same three hosts, with the same image; False where docker is not installed."""
    if not (Path("/usr/sbin/dockerd").exists() and Path("/usr/bin/docker").exists()):
        return False
    folder.mkdir()
    tar = web_image(folder)
    for host in HOSTS:
        _start_docker(lab, host)
        shutil.copy(tar, Path("/var/lib/shoal-lab") / lab.name / host / "shoal" / "web.tar")
        _on(lab, host, DOCKER, "import", "/var/lib/shoal/web.tar", "web:1")
    _on(lab, "n1", DOCKER, "swarm", "init", "--advertise-addr", lab.addresses["n1"], "--listen-addr", SWARM_LISTENS)
    token = _on(lab, "n1", DOCKER, "swarm", "join-token", "-q", "worker")
    for host in ("n2", "n3"):
        _on(lab, host, DOCKER, "swarm", "join", "--token", token, "--listen-addr", SWARM_LISTENS,
            f"{lab.addresses['n1']}:{SWARM_PORT}")  # fmt: skip
    return True


def _start_docker(lab: Lab, host: str) -> None:
    lab.on(host, "sh", "-c", "rm -f /run/docker.pid; dockerd --data-root /var/lib/shoal/docker "
           "-H unix:///run/docker.sock --exec-root /run/docker -p /run/docker.pid "
           ">/var/log/dockerd.log 2>&1 &")  # fmt: skip
    eventually(lambda: lab.on(host, *DOCKER.split(), "info").returncode == 0, what=f"dockerd on {host} answers")


def _on(lab: Lab, host: str, engine: str, *argv: str) -> str:
    done = lab.on(host, *engine.split(), *argv)
    assert done.returncode == 0, f"{host}# {engine} {' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def _nodes_of_running(lab: Lab, engine: str) -> list[str]:
    out = _on(lab, "n1", engine, "service", "ps", "--filter", "desired-state=running", "--format",
              "{{.Node}} {{.CurrentState}}", "spread")  # fmt: skip
    return [line.split()[0] for line in out.splitlines() if line.split()[1] == "Running"]


def _elsewhere(lab: Lab, engine: str) -> list[str]:
    return [node for node in _nodes_of_running(lab, engine) if node != "n3"]


def _balanced(lab: Lab, engine: str) -> bool:
    nodes = _nodes_of_running(lab, engine)
    return len(nodes) == SPREAD and set(nodes) == set(HOSTS)


def _times_of(engines: dict[str, Callable[[], int]]) -> dict[str, float]:
    """How long each takes until all its tasks run elsewhere."""
    start, taken = time.perf_counter(), dict[str, float]()
    while len(taken) < len(engines):
        assert time.perf_counter() - start < 180, f"only {', '.join(taken) or 'nobody'} has restored its tasks"
        for engine, running in engines.items():
            if engine not in taken and running() == SPREAD:
                taken[engine] = time.perf_counter() - start
        time.sleep(0.1)
    return taken
