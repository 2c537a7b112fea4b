"""Many containers on one host: what an idle one costs, and how many can come and go in a second.

`idle.kb_per_container` beside docker: the memory that the daemons, and for docker the shims, have for themselves, per
container. `cycles_per_s` (create, start, wait, remove, with an address on the bridge) is better when higher.
`herd` does the work, on a lab host.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.bench_containers import DOCKER, one_host, start_docker
from tests.bench.row import Row, row
from tests.cluster.conftest import Lab

IDLE = 1_000
DOCKERS_IDLE = 20  # enough for what each of them costs
RESTING = 300
REST_S = 30
TIMEOUT_S = 900
CYCLES = 300
_PYTHON = Path(__file__).parents[2] / ".venv/bin/python"


def rows() -> list[Row]:
    with one_host() as lab:
        cycles = [herd(lab, "cycles", CYCLES) for _ in range(3)]
        herd(lab, "kb", RESTING)
        resting = herd(lab, "cpu", REST_S)
        herd(lab, "clear", RESTING)
        ours = herd(lab, "kb", IDLE)
        herd(lab, "clear", IDLE)
        docker = start_docker(lab)
        theirs = [docker_kb(lab)] if docker else []
        return [
            row("cycles_per_s", cycles, [], "1/s"),
            row("idle.cpu_of_300", [resting], [], "%"),
            row("idle.kb_per_container", [ours], theirs, "kB"),
        ]


def docker_kb(lab: Lab) -> float:
    """What each container adds to dockerd, containerd and the shims."""
    before = herd(lab, "dockers", 0)
    script = f"for i in $(seq {DOCKERS_IDLE}); do {DOCKER} run -d web:1 sleep 1000000 || exit; done"
    done = lab.on("n1", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    grown = herd(lab, "dockers", 0) - before
    lab.on("n1", "sh", "-c", f"{DOCKER} rm -f $({DOCKER} ps -q); kill $(cat /run/docker.pid)")
    return grown / DOCKERS_IDLE


def herd(lab: Lab, verb: str, number: int) -> float:
    done = lab.on("n1", "env", f"PYTHONPATH={_PYTHON.parents[2]}", str(_PYTHON), "-m", "tests.bench.herd", verb,
                  str(number), timeout_s=TIMEOUT_S)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
