"""Volumes and mounts: what `docker` and `shoal` say to the same lines."""

from __future__ import annotations

import pytest

from tests.differential.conftest import Difference, Pair, check_same

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CASES = {
    "volume": """
        engine volume create v1
        engine volume create v1
        engine volume create --label a=b v2
        engine volume ls
        engine volume ls -q --filter label=a
        engine volume ls -q --format table
        engine volume ls --format '{{.Links}} {{.Size}}'
        engine volume ls -q --filter name=v1 --filter dangling=true
        engine volume inspect -f '{{.Name}} {{.Driver}} {{.Scope}} {{json .Labels}}' v2
        engine run -d --name web -v v1:/x busybox sleep 100
        engine volume rm v1
        engine volume ls -q --filter dangling=true
        engine volume rm v2 nosuch
        engine volume rm -f nosuch
        engine volume inspect nosuch
        engine volume create 'bad name'
        engine volume create v
        engine volume create -d nosuch v3 2>/dev/null
        engine volume create --name v3 v4 2>/dev/null
        echo n | engine network prune
        engine rm -f web >/dev/null
        engine volume rm v1 v2
    """,
    "-v": """
        mkdir here; echo data > here/file
        engine run --rm -v $PWD/here:/x busybox cat /x/file
        engine run --rm -v $PWD/here:/x:ro busybox touch /x/new
        engine run --rm -v $PWD/missing/folder:/x busybox ls -d /x
        ls -d missing/folder
        engine run --rm -v /srv/data busybox cat /srv/data/hello
        engine run --rm -v named:/srv/data busybox cat /srv/data/hello
        engine run --rm -v empty:/srv/data:nocopy busybox ls /srv/data
        engine volume ls -q
        engine run --rm -v a:b:c:d busybox
        engine run --rm -v here:/ busybox
        engine run --rm -v /a:/b:bad busybox
        engine run --rm -v /a:/b -v /c:/b busybox
    """,
    "--mount": """
        engine run --rm --mount type=bind,src=/nosuch,dst=/x busybox
        engine run --rm --mount type=volume,src=v1,dst=/srv/data busybox cat /srv/data/hello
        engine run --rm --mount type=volume,src=v2,dst=/srv/data,volume-nocopy busybox ls /srv/data
        engine run --rm --mount type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700 busybox stat -c %a /x
        engine run --rm --mount type=bind,src=/tmp,dst=/x,readonly busybox touch /x/new
        engine run --rm --mount dst=/x busybox ls -d /x
        engine run --rm --mount foo busybox
        engine run --rm --mount foo=bar,dst=/x busybox
        engine run --rm --mount type=bind,src=/tmp,dst=/x,volume-nocopy busybox
        engine run --rm --mount type=bind,src=/tmp,dst=/x,bind-nonrecursive=true busybox
        engine run --rm --tmpfs /x:exec,uid=1000,gid=5,size=1m busybox sh -c 'stat -c "%u %g" /x; mount | grep " /x "' \
            | sed 's/size=[^,]*,//;s/,relatime//;s/,inode64//;s/,mode=1777//'
        engine run --rm --tmpfs /x:nosuch=1 busybox
        engine run --rm -v v4:/x:z -v /tmp:/y:ro,Z busybox touch /y/new
        engine run --name web --mount type=volume,src=v3,dst=/x busybox
        engine inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}} {{.Driver}}{{end}}' web
    """,
    "mounted": """
        engine volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,noexec v1
        engine run -d --name web -v v1:/x busybox sh -c 'echo data > /x/file; sleep 100'
        await engine exec web test -s /x/file
        engine run --rm -v v1:/x busybox sh -c 'cat /x/file; df /x | tail -1'
        engine rm -f web
        engine run --rm -v v1:/x busybox ls /x
        engine volume inspect -f '{{json .Options}}' v1
        engine volume rm v1
        engine run --rm --mount type=volume,dst=/x,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs \
            busybox df /x 2>&1 | grep -c tmpfs
        engine run --name job --mount 'type=volume,src=v2,dst=/x,volume-label=a=b' busybox
        engine volume inspect -f '{{json .Labels}}' v2
        engine volume create -o type=ext4 -o device=/nosuch v3
        engine run --rm -v v3:/x busybox 2>&1 | grep -o -e 'no such file or directory' -e 'exit 127'
        engine volume rm v3
        engine volume create -o odd=x v4
    """,
    "back-up and restore": """
        mkdir backup
        engine run --name db -v /dbdata busybox sh -c 'echo data > /dbdata/file'
        engine run --rm --volumes-from db -v $PWD/backup:/backup busybox tar cvf /backup/backup.tar /dbdata
        engine run --name new -v /dbdata busybox
        engine run --rm --volumes-from new -v $PWD/backup:/backup busybox tar xvf /backup/backup.tar
        engine run --rm --volumes-from new busybox cat /dbdata/file
        engine run --rm --volumes-from new:ro busybox touch /dbdata/more
        engine rm db >/dev/null
        engine run --rm --volumes-from db busybox
    """,
}
DIFFERENCES: dict[str, tuple[Difference, ...]] = {}


@pytest.mark.parametrize("noun", CASES)
def test_both_say_the_same(pair: Pair, noun: str) -> None:
    check_same(*pair.type(CASES[noun]), DIFFERENCES.get(noun, ()))
