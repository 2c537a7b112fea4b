"""What `inspect` prints of the same things: each field that Docker has is there, and of the same type.

Which fields differ on purpose stands in `DIFFERENCES`, each with its reason; there are no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.differential.conftest import Pair

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

SHOW = 'show() { echo "# $*"; engine inspect --format \'{{json .}}\' "$@"; }\n'
CASES = {
    "containers": """
        engine network create --subnet 10.9.0.0/24 net >/dev/null
        engine run -d --name plain busybox sleep 100 >/dev/null
        engine exec -d plain sleep 100
        engine create --name made busybox >/dev/null
        engine run -d --name rich -w /tmp -u web --hostname here --label a=b -p 8080:80 -p 127.0.0.1:81:81/udp \
            --expose 99 -v vol:/v -v /tmp:/host:ro -v /anon --tmpfs /t:size=1m --network net --network-alias al \
            --ip 10.9.0.7 -m 64m --cpus 0.5 --cpuset-cpus 0 --pids-limit 50 --ulimit nofile=100:200 \
            --cap-add NET_ADMIN --cap-drop MKNOD --security-opt no-new-privileges --sysctl net.ipv4.ip_forward=1 \
            --device /dev/null:/dev/other:r --restart on-failure:3 --log-opt max-size=1m --health-cmd true \
            --health-interval 200ms --init --add-host x:1.2.3.4 --dns 1.1.1.1 --dns-search ex.org --dns-opt ndots:2 \
            --group-add 77 --stop-timeout 3 --shm-size 1m --entrypoint /bin/sleep --read-only --cidfile id \
            --device-cgroup-rule 'c 1:3 rwm' busybox 100 >/dev/null
        healthy() { engine ps -q --filter health=healthy | grep -q .; }
        await healthy
        engine run -d --name joined --network container:plain --volumes-from rich busybox sleep 100 >/dev/null
        engine run --name gone --network host busybox sh -c 'exit 3' >/dev/null
        for each in plain made rich joined gone; do show $each; done
        show --size plain
    """,
    "images": """
        show --type image busybox
        touch file
        tar c file | engine import -c 'LABEL a=b' -c 'EXPOSE 80' -c 'ENTRYPOINT ["/bin/echo"]' -c 'CMD ["hi"]' \
            -c 'VOLUME /vol' -c 'USER 5' -c 'WORKDIR /w' -c 'HEALTHCHECK CMD true' -m said - lab >/dev/null
        show --type image lab
        engine run --name web busybox touch /new
        engine commit -a me -m said web made:1 >/dev/null
        show --type image made:1
        engine rmi lab made:1 >/dev/null
    """,
    "networks and volumes": """
        engine network create --label a=b --subnet 10.9.0.0/24 --gateway 10.9.0.1 --ip-range 10.9.0.0/28 net >/dev/null
        engine run -d --name web --network net busybox sleep 100 >/dev/null
        engine volume create --label a=b named >/dev/null
        engine volume create >/dev/null
        for each in net bridge host none; do show --type network $each; done
        for each in $(engine volume ls -q 2>/dev/null); do show --type volume $each; done
    """,
}
# Patterns of a path, with what it is of, and why.
DIFFERENCES = {
    r"rich ExecIDs": "its health may be looked at just now",
    r"HostConfig\.KernelMemory(TCP)?": "later releases of Docker have none",
    r"image Config\.(Hostname|Domainname|Attach\w+|Tty|OpenStdin|StdinOnce|Image)": "later releases have none",
    r"image (Container|ContainerConfig|DockerVersion|VirtualSize)": "later releases have none",
    r"image Metadata": "when a name was given to an image is not kept",
    r"image Descriptor": "later releases have it: the manifest by which it is known",
    r".*\.DNSNames": "later releases have it",
    r".*\.StartInterval": "later releases have it",
    r"network EnableIPv4": "later releases have it",
    r"HostConfig\.Annotations": "later releases have it",
    r".*\.Healthcheck\.\w+": "the test as it is done, with its defaults",
    r"Mounts\[\d+\]\.(Name|Driver)": "only volumes have them, and the order of mounts is no promise",
    r"Config\.StopSignal": "where nobody chose one, what it is then",
    r".*\.Networks\.\w+\.Aliases": "its short id is a name of every container, and no alias",
    r"image Config\.Labels": "null where there are none",
    r"network IPAM\.Config\[0\]\.Gateway": "shown where nobody asked for one",
    r"network Options\..*": "which device a network has",
}


@pytest.mark.parametrize("kind", CASES)
def test_documents_have_the_fields_of_dockers_and_their_types(pair: Pair, kind: str) -> None:
    ours, theirs = pair.type(SHOW + CASES[kind])
    mine, other = ours.out.splitlines(), theirs.out.splitlines()
    assert len(mine) == len(other) > 2, f"ours:\n{ours}\ndocker's:\n{theirs}"
    wrong, what = [], ""
    for one, another in zip(mine, other, strict=True):
        if one.startswith("#"):
            what = one
            continue
        noun = next((f"{each} " for each in ("image", "network", "volume") if f"--type {each}" in what), "")
        for path, difference in _differences(json.loads(one), json.loads(another), ""):
            names = f"{noun}{path}", f"{what.split()[-1]} {path}"
            if not any(re.fullmatch(each, name) for each in DIFFERENCES for name in names):
                wrong.append(f"{what}: {noun}{path} {difference}")
    assert not wrong, "\n".join(wrong)


def _differences(ours: Any, theirs: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            below = f"{path}.{key}" if path else key
            if key not in ours or key not in theirs:
                yield below, f"is only docker's: {theirs[key]}" if key in theirs else f"is only ours: {ours[key]}"
            else:
                yield from _differences(ours[key], theirs[key], below)
    elif isinstance(ours, list) and isinstance(theirs, list):
        for number, (one, another) in enumerate(zip(ours, theirs, strict=False)):
            yield from _differences(one, another, f"{path}[{number}]")
    elif type(ours) is not type(theirs):
        yield path, f"is {ours!r}, docker's {theirs!r}"
