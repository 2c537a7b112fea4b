"""What an operator waits for: a service over three lab hosts, from the command to the last task running."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from tests.bench.row import Row, row
from tests.cluster.conftest import Lab, eventually, form_cluster, import_web

ROUNDS = 3
REPLICAS = 60


def rows() -> list[Row]:
    lab = Lab(f"b{os.getpid() % 10000}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            lab("up", "3")
            import_web(lab, Path(folder))
            form_cluster(lab)
            return [service_60(lab)]
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
        for host in ("n1", "n2", "n3"):
            eventually(lambda host=host: not lab.shoal(host, "ps", "-aq"), what=f"nothing left on {host}")
    return row("service_60.seconds", taken, [], "s")
