"""Images: what `docker` and `shoal` say to the same lines."""

from __future__ import annotations

import shutil

import pytest

from tests.differential.conftest import Difference, Pair, check_same

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CASES = {
    "tag and rmi": """
        engine tag busybox app:1
        engine tag busybox team/app
        engine tag nosuch app:2
        engine tag busybox App:1
        engine tag busybox app@sha256:0000000000000000000000000000000000000000000000000000000000000000
        engine images app
        engine images --format '{{.Repository}} {{.Tag}} {{.Size}}' team/app
        engine images -q app:1 | wc -l
        engine images nosuch
        engine images --digests --format '{{.Digest}}' app
        engine rmi app:1 nosuch
        engine rmi team/app
        engine image rm
        engine rmi -f nosuch
    """,
    "rmi": """
        engine run --name job busybox true
        engine commit job app:1
        engine tag app:1 app:2
        engine tag app:1 other:1
        engine rmi $(engine images -q app:1)
        engine run --name user app:1 true
        engine rmi app:1
        engine rmi other:1
        engine rmi app:2
        engine rmi -f app:2
        engine ps -a --format '{{.Names}}' --filter name=user
        engine rm user
        engine image prune -f >/dev/null
        engine run -d --name busy busybox sleep 100
        engine rmi busybox
        engine rmi $(engine images -q busybox)
        engine rmi -f $(engine images -q busybox)
        engine rm -f busy
    """,
    "a name that moves": """
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit job app:1 >/dev/null
        engine run -d --name old app:1 sleep 100
        engine run --name next busybox sh -c 'echo y > /y'
        engine commit next app:1 >/dev/null
        engine run -d --name new app:1 sleep 100
        engine run -d --name full $(engine images -q --no-trunc app:1) sleep 100
        engine ps --format '{{.Names}} {{.Image}}'
        engine ps --no-trunc --format '{{.Names}} {{.Image}}'
        engine ps --filter ancestor=app:1 --format '{{.Names}}'
        engine system df -v | awk '$NF ~ /^(old|new|full)$/ {print $NF, $2}'
        engine inspect -f '{{.Config.Image}}' old
        engine tag $(engine inspect -f '{{.Image}}' old) app:1
        engine ps --format '{{.Names}} {{.Image}}'
        engine rmi -f app:1 >/dev/null 2>&1
        engine ps --format '{{.Names}} {{.Image}}'
        engine rm -f old new full job next
        engine image prune -f >/dev/null
    """,
    "children": """
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit job middle:1 >/dev/null
        engine run --name two middle:1 sh -c 'echo y > /y'
        engine commit -m note two top:1 >/dev/null
        engine rm job two
        middle=$(engine images -q --no-trunc middle)
        top=$(engine images -q --no-trunc top)
        engine history --no-trunc --format '{{.ID}} {{.Comment}}' top:1 | head -n 2 | sed "s/$middle/MID/; s/$top/TOP/"
        test "$(engine inspect -f '{{.Parent}}' top:1)" = $middle && echo parent
        engine rmi $middle 2>&1 | sed 's/delete [0-9a-f]*/delete ID/'
        engine rmi -f $middle 2>&1 | sed 's/delete [0-9a-f]*/delete ID/'
        engine rmi middle:1
        engine images --format '{{.Repository}}' | sort
        engine images -a --format '{{.Repository}}' | sort
        engine image prune -f
        engine rmi top:1 | cut -c1-15
        engine images -a --format '{{.Repository}}' | sort
        engine run --name job busybox true
        engine commit job middle:1 >/dev/null
        engine run --name two middle:1 true
        engine commit two top:1 >/dev/null
        engine rm job two
        engine rmi middle:1
        engine rmi --no-prune top:1 | cut -c1-15
        engine images -a --format '{{.Repository}}' | sort
        engine image prune -f >/dev/null
    """,
    "images": """
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit -c 'LABEL a=b' -c 'LABEL c=' job first:1 >/dev/null
        sleep 1.1
        engine commit job second:1 >/dev/null
        engine images --format '{{.Repository}}:{{.Tag}}' --filter label=a
        engine images --format '{{.Repository}}:{{.Tag}}' --filter label=a=b --filter label=c
        engine images --format '{{.Repository}}:{{.Tag}}' --filter label=a=x
        engine images --format '{{.Repository}}:{{.Tag}}' --filter before=second:1 --filter since=busybox
        engine images --format '{{.Repository}}:{{.Tag}}' --filter reference='f*' --filter reference=second
        engine images --format '{{.Repository}}:{{.Tag}}' --filter reference='*/*'
        engine images --filter odd=x
        engine images --filter dangling=maybe
        engine images --filter before=nosuch
        engine commit job second:1 >/dev/null
        engine images --filter dangling=true --format '{{.Repository}} {{.Tag}}'
        engine images --filter dangling=false --format '{{.Repository}} {{.Tag}}' | sort
        engine images -a --format '{{.Repository}}' | sort
        engine images --no-trunc --format '{{.ID}}' | cut -c1-7 | sort -u
        engine images --format '{{json .}}' first | grep -o '"Repository":"first"'
        engine images -q --format table first
        engine images --format '{{.Containers}} {{.SharedSize}} {{.UniqueSize}}' first
        engine images first second
        engine image prune -f
        engine image prune -f --filter until=1s
        engine image ls -q --filter dangling=true
        engine rmi first:1 second:1 >/dev/null
    """,
    "commit and history": """
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit -a 'Jane <j@x>' -m 'a note' -c 'ENV A=b' -c 'CMD ["sleep","1"]' job app:1
        engine inspect -f '{{.Author}} {{.Comment}} {{.Config.Env}} {{.Config.Cmd}} {{len .RootFS.Layers}}' app:1
        engine inspect -f '{{.Os}} {{json .RepoTags}} {{json .RepoDigests}} {{.RootFS.Type}}' app:1
        engine history --format '{{.CreatedBy}}|{{.Size}}|{{.Comment}}' app:1
        engine history --no-trunc --format '{{.CreatedBy}}' app:1
        engine history app:1 | sed -n 1,1p
        engine history -H=false --format '{{.CreatedAt}}' app:1 | sed -n 1,1p
        engine history -q app:1 | sed -n 1,1p
        engine history nosuch
        engine history
        engine commit nosuch
        engine commit -c 'RUN x' job
        engine commit job 'App'
        engine image inspect nosuch
        engine rmi app:1 >/dev/null
    """,
    "save, load, import, export": """
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit job app:1 >/dev/null
        engine tag app:1 app:2
        id=$(engine images -q --no-trunc app:1)
        engine save app -o one.tar
        engine save app:1 busybox > two.tar
        engine save nosuch > none.tar
        engine save
        engine rmi app:1 app:2 >/dev/null
        engine load -i one.tar
        test "$id" = "$(engine images -q --no-trunc app:1)" && echo same
        engine load -q < two.tar | sort
        gzip < one.tar | engine load
        engine load -i nosuch.tar
        echo nonsense | engine load >/dev/null
        engine run --rm app:2 cat /x
        engine export job > root.tar
        engine export -o root2.tar job
        tar tf root.tar | grep -cx -e x -e etc/hostname -e etc/hosts
        cmp <(tar tf root.tar | sort) <(tar tf root2.tar | sort) && echo same
        engine export nosuch
        engine import -m note -c 'ENV A=b' -c 'CMD cat /x' root.tar app:3
        engine inspect -f '{{.Comment}} {{.Config.Env}} {{.Config.Cmd}}' app:3
        engine run --rm app:3
        bzip2 < root.tar | engine import - app:4
        xz < root.tar | engine import -
        engine run --rm app:4 cat /x
        engine run --rm app:4
        engine history --format '{{.CreatedBy}}|{{.Comment}}' app:3
        engine import nosuch.tar
        engine import - nothing </dev/null | wc -w
        engine run --rm nothing
        engine rmi nothing >/dev/null
        engine import -c 'RUN x' root.tar
        python3 -m http.server -d . -b 127.0.0.1 8765 >/dev/null 2>&1 &
        server=$!
        await bash -c ': < /dev/tcp/127.0.0.1/8765'
        engine import http://127.0.0.1:8765/root.tar app:5
        engine run --rm app:5 cat /x
        kill $server
        engine rmi app:1 app:2 app:3 app:4 app:5 >/dev/null
        engine image prune -f >/dev/null
    """,
    "prune and df": """
        engine run --name job busybox sh -c 'echo x > /x'
        engine commit job app:1 >/dev/null
        engine commit -c 'LABEL keep=yes' job app:2 >/dev/null
        engine volume create v1 >/dev/null
        engine network create n1 >/dev/null
        engine system df --format '{{.Type}} {{.TotalCount}} {{.Active}}'
        engine system df | sed -n 1p
        engine system df -v | grep -e space -e ^REPO -e ^CONT -e ^VOL
        engine system df -v --format '{{.Type}}' extra
        engine image prune -a -f --filter label!=keep --filter label=nosuch
        engine image prune -a -f --filter odd=x
        engine image prune -f -a --filter label!=keep --filter until=1000h
        echo y | engine image prune
        engine rm job >/dev/null
        engine image prune -a -f --filter label=keep
        echo n | engine system prune 2>/dev/null
        echo n | engine system prune -a --volumes 2>/dev/null
        engine system prune -f --volumes --filter until=1h
        engine system prune -f --filter label=nosuch
        engine run --name job busybox true
        engine system prune -f | sed /Total/d
        engine volume ls -q
        engine network ls -q --filter name=n1 | wc -l
        engine rmi app:1 >/dev/null
    """,
}
NEWER = "as later clients say"
OWN_WORDS = "the older client has words of its own for what the daemon says"
DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    "tag and rmi": (Difference("No such image: nosuch(?!:)", "No such image: nosuch:latest", OWN_WORDS),),
    "rmi": (
        Difference(
            r"Deleted: sha256:<id>\nuser", "user", "the container goes on having its image, which has no name any more"
        ),
        Difference('reference "busybox"', 'reference "busybox:latest"', "ours says which tag it is"),
    ),
    "images": (Difference(r"dangling=\[maybe\]", "dangling=maybe", "ours shows it as it was written"),),
    "save, load, import, export": (
        Difference("No such image: nosuch(?!:)", "No such image: nosuch:latest", OWN_WORDS),
        Difference("Error processing tar file.*", "cannot load the archive: the archive is cut off", "ours says what"),
        Difference(r"Downloading from http:.*\n", "", "nothing but the image's id goes to stdout"),
    ),
    "prune and df": (
        Difference("all dangling build cache", "unused build cache", NEWER),
        Difference("all volumes not used", "all anonymous volumes not used", NEWER),
    ),
    "commit and history": (Difference("No such image: nosuch(?!:)", "No such image: nosuch:latest", OWN_WORDS),),
}


@pytest.mark.parametrize("name", CASES)
def test_both_say_the_same(pair: Pair, name: str) -> None:
    check_same(*pair.type(CASES[name]), differences=DIFFERENCES.get(name, ()))


MADE = """
engine run --name job busybox sh -c 'echo x > /etc/x; ln /etc/x /etc/y; ln -s x /etc/z; chown 7:8 /etc/x; chmod 4711 /etc/y'
engine commit -c 'CMD ["cat", "/etc/x"]' -m note job crossed:1 >/dev/null
engine save -o /var/lib/shoal/crossed.tar crossed:1
"""  # noqa: E501
# Folders aside, and what an engine puts into a container of its own.
SHOWN = """
engine inspect -f '{{.Id}} {{json .RootFS.Layers}} {{json .Config.Cmd}} {{.Comment}}' crossed:1
engine run --rm crossed:1
engine run --rm crossed:1 sh -c 'find / -xdev ! -type d ! -name "host*" ! -name resolv.conf ! -name ".docker*" \
    ! -name mtab | sort | xargs stat -c "%n %a %u:%g %s %Y %h %F"'
"""


@pytest.mark.parametrize("saver", ["shoal", "docker"])
def test_each_loads_what_the_other_saved(pair: Pair, saver: str) -> None:
    """The same id, the same layers, and the same files with owners, modes and times."""
    hosts = (pair.shoal, pair.docker) if saver == "shoal" else (pair.docker, pair.shoal)
    disks = pair.disks if saver == "shoal" else pair.disks[::-1]
    here = hosts[0].type(MADE + SHOWN)
    shutil.move(disks[0] / "crossed.tar", disks[1] / "crossed.tar")
    there = hosts[1].type("engine load -i /var/lib/shoal/crossed.tar >/dev/null\n" + SHOWN)
    (disks[1] / "crossed.tar").unlink()
    for host in hosts:
        host.type("engine rm job; engine rmi -f crossed:1")
    assert "/etc/x 4711 7:8 2 " in here.out
    assert there.out == here.out, there.err
