"""Registries: what `docker` and `shoal` say to the same lines about one that has the same.

Each host has a registry of its own on loopback, where no engine asks for TLS; what is to be pulled, docker has pushed,
and the files of its registry were copied. What is said of single layers is left out: which of them an engine has is its
own affair.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.conftest import eventually
from tests.differential.conftest import Difference, Pair, check_same
from tests.differential.test_images import OWN_WORDS

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]
PORT = 5000
CONFIG = f"""
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: /var/lib/shoal/registry}}, delete: {{enabled: true}}}}
http: {{addr: '127.0.0.1:{PORT}'}}
"""
# What is there to be pulled: two images, of which the second is the first one's child.
SEED = f"""
at=127.0.0.1:{PORT}/lib/app
engine run --name job busybox sh -c 'echo x > /x'
engine commit job $at:1
engine run --name two $at:1 sh -c 'echo y > /y'
engine commit two $at:2
engine rm job two
engine push -a $at
engine rmi $at:1 $at:2
"""
# Lines of single layers.
QUIET = "sed -E '/^[0-9a-f]{12}: /d; s/ size: [0-9]+$/ size/'"

CASES = {
    "pull": """
        at=127.0.0.1:5000/lib/app
        engine pull $at:1 | QUIET
        engine pull $at:1 | QUIET
        engine pull $at
        engine pull 127.0.0.1:5000/lib/none:1
        engine pull -q $at:2
        engine pull 127.0.0.1:5000/lib/App
        engine pull 127.0.0.1:1/app 2>&1 | grep -o 'connection refused'
        engine pull
        engine pull $at@sha256:0000000000000000000000000000000000000000000000000000000000000000
        engine pull $at@sha256:00
        engine images --digests --format '{{.Repository}}:{{.Tag}} {{printf "%.20s" .Digest}}' $at | sort
        engine rmi $at:1
        digest=$(engine inspect -f '{{index .RepoDigests 0}}' $at:2)
        engine rmi $at:2 | cut -c1-20
        engine pull $digest | QUIET
        engine images --format '{{.Repository}} {{.Tag}}' $at
        engine images --digests --format '{{.Tag}} {{printf "%.20s" .Digest}}' $at
        engine inspect -f '{{json .RepoTags}} {{len .RepoDigests}}' $digest
        engine run --rm $digest cat /x
        engine tag $digest app:mine
        engine inspect -f '{{json .RepoTags}} {{len .RepoDigests}}' app:mine
        engine rmi $digest
        engine inspect -f '{{json .RepoTags}} {{len .RepoDigests}}' app:mine
        engine rmi app:mine | cut -c1-20
    """,
    "pull all": """
        at=127.0.0.1:5000/lib/app
        engine pull -a $at:1
        engine pull -a $at | QUIET
        engine pull -a -q $at
        engine pull -a 127.0.0.1:5000/lib/none
        engine images --format '{{.Repository}}:{{.Tag}}' $at | sort
        engine rmi $at
        engine rmi $at:1 $at:2 | cut -c1-20 | sort
    """,
    "push": """
        at=127.0.0.1:5000/mine/app
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit job $at:1 >/dev/null
        engine rm job >/dev/null
        engine images --digests --format '{{.Tag}} {{.Digest}}' $at
        engine push $at:1 | QUIET
        engine push $at:1 | QUIET
        engine images --digests --format '{{.Tag}} {{printf "%.7s" .Digest}}' $at
        engine inspect -f '{{len .RepoDigests}}' $at:1
        engine push -q $at:1
        engine push $at
        engine push -q $at
        engine push 127.0.0.1:5000/mine/none:1
        engine push -a $at:1
        engine push -a 127.0.0.1:5000/mine/none
        engine push App
        engine push $at@sha256:0000000000000000000000000000000000000000000000000000000000000000
        engine push
        engine tag $at:1 $at:2
        engine tag $at:1 127.0.0.1:5000/other/app:1
        engine push -a $at | QUIET
        engine push -aq $at
        engine push 127.0.0.1:5000/other/app:1 | QUIET
        engine inspect -f '{{len .RepoDigests}}' $at:1
        engine rmi $at:1
        engine rmi $(engine images -q $at:2)
        engine rmi $at:2
        engine rmi 127.0.0.1:5000/other/app:1 | cut -c1-15
        engine pull -q $at:2
        engine run --rm $at:2 cat /x
        engine rmi $at:2 | cut -c1-15
    """,
}
DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "pull all": (
        Difference(
            r"No such image: 127.0.0.1:5000/lib/app\b(?!:)", "No such image: 127.0.0.1:5000/lib/app:latest", OWN_WORDS
        ),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def seeded(engines: Pair) -> Iterator[None]:
    """A registry on each host, with the same in it."""
    docker = engines.disks[1]
    for host, disk in zip(("n1", "n2"), engines.disks, strict=True):
        (disk / "registry.yml").write_text(CONFIG)
        serve = "docker-registry serve /var/lib/shoal/registry.yml >/dev/null 2>&1 & echo $! > /run/registry.pid"
        engines.lab.on(host, "sh", "-c", serve)
        ready = ("bash", "-c", f": < /dev/tcp/127.0.0.1/{PORT}")
        eventually(partial(answers, engines, host, ready), seconds=30, what="the registry answers")
    seeded = engines.docker.type(SEED)
    assert "[exit 1]" not in seeded.err, seeded
    copy(docker, engines.disks[0])
    yield
    for host, disk in zip(("n1", "n2"), engines.disks, strict=True):
        engines.lab.on(host, "sh", "-c", "kill $(cat /run/registry.pid)")
        shutil.rmtree(disk / "registry")
        (disk / "registry.yml").unlink()


def answers(engines: Pair, host: str, ready: tuple[str, ...]) -> bool:
    return engines.lab.on(host, *ready).returncode == 0


def copy(source: Path, target: Path) -> None:
    """All that one's registry has, into the other's."""
    shutil.copytree(source / "registry", target / "registry", dirs_exist_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_both_say_the_same(pair: Pair, name: str) -> None:
    check_same(*pair.type(CASES[name].replace("QUIET", QUIET)), differences=DIFFERENCES.get(name, ()))
