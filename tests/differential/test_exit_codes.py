"""Exit codes: what a script sees of `docker` and of `shoal` where a command line is wrong, or cannot be done.

Words are compared elsewhere; here stands a line for each way to fail.
"""

from __future__ import annotations

import re

import pytest

from tests.differential.conftest import Pair

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

BEFORE = """
engine network create n0
engine run -d --name web busybox sleep 1000
engine run --name stopped busybox true
mkdir dir; echo hi >file; echo bad line >env
"""
CASES = {
    "line": """
        --nosuch
        nosuch
        container nosuch
        container ls --nosuch
        tag --nosuch
        tag a
        cp a
        rm
        run
        run --nosuch busybox
        run --rm=maybe busybox
        exec web
        port
        network create
        login a b
        build
    """,
    "flag": """
        ps --filter bad
        ps --last bad
        images --filter bad
        volume ls --filter bad
        network prune -f --filter bad
        events --filter bad --until 0
        volume create --label '' v9
        network create --label '' x
        exec -e '' web true
        update -m bad web
        stop -t bad web
        search --limit bad x
    """,
    "create": """
        create -e '' busybox
        create --env-file nosuch busybox
        create --env-file env busybox
        create -p 99999:80 busybox
        create -m bad busybox
        create --mount bad busybox
        create --ulimit bad busybox
        create --security-opt seccomp=nosuch busybox
        create --restart always --rm busybox
        create -v a:b:c:d busybox
        create -v rel/path:/x busybox
        create --tmpfs bad busybox
        create --restart bad busybox
        create --stop-signal BAD busybox
        create --workdir rel busybox
        create --isolation bad busybox
        create --name 'bad name' busybox
        create --name web busybox
        create --network nosuch --name gone busybox; engine start gone
        create --volumes-from nosuch busybox
        create --cidfile file busybox
        create --cidfile nosuch/id busybox
        create UPPER
        create b:::c
    """,
    "run": """
        run -e '' busybox
        run --env-file nosuch busybox
        run -p 99999:80 busybox
        run -v rel/path:/x busybox
        run --restart bad busybox
        run --stop-signal BAD busybox
        run --workdir rel busybox
        run --name web busybox
        run --network nosuch busybox
        run -d -a stdin busybox
        run --detach-keys bad busybox
        run -it busybox
        run UPPER
        run b:::c
        run busybox nosuch
        run busybox /etc
        run -d busybox nosuch
        run -u nosuch busybox true
        run busybox sh -c 'exit 7'
        run --device /dev/nosuch busybox true
        run --sysctl net.nosuch=1 busybox true
        volume create -o type=none -o o=bind -o device=/nosuch lost; engine run -v lost:/x busybox true
        -c nosuch run busybox
    """,
    "state": """
        run --name sa --device /dev/nosuch busybox true; engine inspect -f '{{.State.ExitCode}}' sa >&3
        start sa; engine inspect -f '{{.State.ExitCode}}' sa >&3
        start -a sa
        run --name sb --sysctl net.nosuch=1 busybox true; engine inspect -f '{{.State.ExitCode}}' sb >&3
        run --name sc busybox nosuch; engine inspect -f '{{.State.ExitCode}}' sc >&3
        run --name sd busybox /etc; engine inspect -f '{{.State.ExitCode}}' sd >&3
        run --name se -u nosuch busybox true; engine inspect -f '{{.State.ExitCode}}' se >&3
    """,
    "container": """
        cp x y
        cp web:/x stopped:/y
        cp file web:/nosuch/dir/
        cp web:/nosuch .
        cp - -
        rm nosuch
        rm -f nosuch
        start nosuch
        start -a web stopped
        attach stopped
        attach --detach-keys bad web
        exec nosuch true
        exec stopped true
        exec -it web true
        exec -d web nosuch
        exec --env-file nosuch web true
        exec --detach-keys bad web true
        exec -d --detach-keys bad web true
        exec web sh -c 'exit 7'
        logs nosuch
        logs --since bad web
        update web
        update --restart bad web
        update --blkio-weight bad web
        port web bad
        port web 80
        kill -s BAD web
        kill stopped
        stop nosuch
        wait nosuch
        top stopped
        stats --no-stream nosuch
        rename web 'bad name'
        diff nosuch
        export -o nosuch/file web
        export -o dir web
        commit web UPPER
        commit -c 'BAD x' web
        ps --filter bad=x
        ps --filter status=bad
        ps --format '{{'
        container prune -f --filter until=bad
        inspect --type bad web
        inspect --format '{{' web
        inspect nosuch
        inspect b:::c
    """,
    "image": """
        tag a b:::c
        tag busybox UPPER
        tag nosuch b
        rmi nosuch
        rmi UPPER
        history b:::c
        images UPPER
        images --filter bad=x
        save nosuch
        save -o nosuch/file busybox
        load -i nosuch
        load -i file
        import nosuch
        import file UPPER
        import -c 'BAD x' file
        pull UPPER
        pull -a 127.0.0.1:1/x:tag
        push UPPER
        push 127.0.0.1:1/nosuch
        login -u x -p y 127.0.0.1:1
        login --password-stdin
        build nosuch
        build file
        build -f nosuch dir
        search --filter bad=x x
        image inspect nosuch
        image prune -f --filter until=bad
    """,
    "network and volume": """
        network create --subnet bad x
        network create --gateway bad x
        network create --gateway 10.9.9.1 x
        network create --subnet 10.1.0.0/24 --gateway 10.9.0.1 x
        network create --driver nosuch x
        network create bridge
        network connect nosuch web
        network connect --ip bad bridge web
        network disconnect n0 web
        network rm bridge
        network ls --filter bad=x
        volume create 'bad name'
        volume create -o bad v9
        volume create --driver nosuch v9
        volume create --name x y
        volume rm nosuch
        volume ls --filter bad=x
        volume inspect nosuch
    """,
    "swarm": """
        service create --mode bad busybox
        service create --mode global --replicas 2 busybox
        service create --restart-condition bad busybox
        service create --replicas bad busybox
        service create --env-file nosuch busybox
        service scale bad
        service logs --tail bad nosuch
        service inspect --pretty --format x nosuch
        node inspect --pretty --format x nosuch
        node update --availability bad nosuch
        swarm init --availability bad
        swarm init --cert-expiry bad
        swarm join-token bad
        context create 'bad name'
        context inspect nosuch
        context use nosuch
    """,
}
# As root that may not write where the mode of a folder forbids it.
FORBIDDEN = """
    export -f engine; mkdir -m 555 locked; mkdir -m 000 shut; mkdir dir
    limited() { setpriv --bounding-set -dac_override,-dac_read_search bash -c "engine $1 --cidfile $2 busybox true"; }
    for verb in run create; do
        for file in locked/id shut/id dir dir/ nosuch/id ok; do limited $verb $file; done
    done
"""


@pytest.mark.parametrize("kind", CASES)
def test_both_end_with_the_same_code(pair: Pair, kind: str) -> None:
    lines = [line.strip() for line in CASES[kind].strip().splitlines()]
    script = "\n".join(f"{{ engine {line}; }} >/dev/null 2>&1 </dev/null; echo $?:" for line in lines)
    said = pair.type(f"{{ {BEFORE} }} >/dev/null 2>&1; exec 3>&1\n{script}")
    ours, theirs = (dict(zip(lines, each.out.split(":"), strict=False)) for each in said)
    assert ours == theirs
    assert len(ours) == len(lines)


def test_both_end_with_the_same_code_where_the_id_file_cannot_be(pair: Pair) -> None:
    ours, theirs = (re.findall(r"exit \d+", said.err) for said in pair.type(FORBIDDEN))
    assert ours == theirs
    assert ours[:6] == ["exit 126", "exit 126", "exit 125", "exit 125", "exit 127", "exit 0"]
