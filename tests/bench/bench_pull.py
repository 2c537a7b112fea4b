"""A pull of 100 MB in five layers from a registry on loopback, beside docker's, and beside skopeo and umoci, which
together do as much: fetch, verify, unpack. Whole command lines; what each left is removed in between, untimed.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.bench.bench_containers import one_host, start_docker, stop_docker
from tests.bench.row import Row, row
from tests.cluster.conftest import Lab, eventually

TIMES = 5
LAYERS, FILES, FILE_BYTES = 5, 100, 210_000
# More than half of a real image does not compress.
RANDOM_SHARE = 0.57
IMAGE = "127.0.0.1:5000/big:1"
REGISTRY = """version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: /var/lib/shoal/registry}}
http: {addr: '127.0.0.1:5000'}
"""

# Runs inside the host: (milliseconds of each side, by turns); what a side left is removed before it is asked again.
TIMER = """
import json, os, subprocess, sys, time
sides, times = json.loads(sys.argv[1]), int(sys.argv[2])
environment, silent = {**os.environ, "SHOAL_WARM": "0"}, subprocess.DEVNULL
def run(script):
    subprocess.run(["sh", "-ec", script], check=True, stdout=silent, stderr=silent, env=environment)
taken = [[] for _ in sides]
for count in range(times + 1):
    for side, (script, clean) in enumerate(sides):
        os.sync()
        start = time.perf_counter()
        run(script)
        if count:
            taken[side].append((time.perf_counter() - start) * 1000)
        run(clean)
print(json.dumps(taken))
"""
SKOPEO = (
    f"skopeo copy --src-tls-verify=false docker://{IMAGE} oci:/var/lib/shoal/copied:1; "
    "umoci unpack --image /var/lib/shoal/copied:1 /var/lib/shoal/unpacked",
    "rm -rf /var/lib/shoal/copied /var/lib/shoal/unpacked",
)


def rows() -> list[Row]:
    with one_host() as lab:
        docker = start_docker(lab)
        fill(lab)
        engines = [f"{engine} pull -q {IMAGE}" for engine in ["shoal", *docker]]
        sides = [(pull, f"{pull.partition(' pull')[0]} rmi {IMAGE}") for pull in engines]
        done = lab.on("n1", "python3", "-c", TIMER, json.dumps([*sides, SKOPEO]), str(TIMES), timeout_s=900)
        assert done.returncode == 0, done.stderr
        ours, *beside, skopeo = json.loads(done.stdout)
        if docker:
            stop_docker(lab)
        return [
            row("pull.vs_docker", ours, beside[0] if beside else [], "ms"),
            row("pull.vs_skopeo", ours, skopeo, "ms"),
        ]


def fill(lab: Lab) -> None:
    """A registry on the host, with the image."""
    disk = Path("/var/lib/shoal-lab") / lab.name / "n1" / "shoal"
    (disk / "registry.yml").write_text(REGISTRY)
    lab.on("n1", "sh", "-c", "docker-registry serve /var/lib/shoal/registry.yml >/var/log/registry.log 2>&1 &")
    chance = random.Random(1)
    layout = "/var/lib/shoal/made"
    script = [f"umoci init --layout {layout}", f"umoci new --image {layout}:1"]
    for layer in range(LAYERS):
        folder = disk / f"layer{layer}"
        folder.mkdir()
        for number in range(FILES):
            noise = chance.randbytes(int(FILE_BYTES * RANDOM_SHARE))
            (folder / f"file{number}").write_bytes(noise + b"text " * ((FILE_BYTES - len(noise)) // 5))
        script.append(f"umoci insert --image {layout}:1 /var/lib/shoal/layer{layer} /layer{layer}")
    script.append(f"skopeo copy --dest-tls-verify=false oci:{layout}:1 docker://{IMAGE}")
    script.append(f"rm -rf {layout} /var/lib/shoal/layer*")
    eventually(
        lambda: lab.on("n1", "curl", "-fs", "http://127.0.0.1:5000/v2/").returncode == 0, what="registry answers"
    )
    done = lab.on("n1", "sh", "-ec", "\n".join(script))
    assert done.returncode == 0, done.stderr
