"""Networks: what `docker` and `shoal` say to the same lines."""

from __future__ import annotations

import pytest

from tests.differential.conftest import Difference, Pair, check_same

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CASES = {
    "network": """
        engine network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'
        engine network create --label a=b n1
        engine network create n1
        engine network ls --filter name=n1 --format '{{.Name}} {{.Driver}} {{.Scope}}'
        engine network ls -q --filter label=a=b
        engine network ls --no-trunc --filter label=a=b | grep -cE '^[0-9a-f]{64} '
        engine network inspect -f '{{.Name}} {{.Id}}' $(engine network ls -q --filter label=a=b)
        engine network ls -q --filter type=custom
        engine network ls --filter type=builtin --format '{{.Name}}'
        engine network ls --filter nosuch=1
        engine network ls --filter dangling=true --format '{{.Name}}'
        engine network ls --filter type=bad >/dev/null 2>&1; echo $?
        engine network create -d bad n4
        engine network create bridge
        engine network create host
        engine network create --subnet 10.9.0.0/24 --gateway 10.9.0.9 --ip-range 10.9.0.128/25 n2
        engine network inspect -f '{{json .IPAM.Config}} {{.Name}} {{.Internal}}' n2
        engine network create --subnet 10.9.0.0/16 n3
        engine network create -o com.docker.network.driver.mtu=1280 n5
        engine network inspect -f '{{index .Options "com.docker.network.driver.mtu"}}' n5
        engine run --rm --network n5 busybox cat /sys/class/net/eth0/mtu
        engine network rm n5
        engine run -d --name web --network n2 busybox sleep 100
        engine inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}' web
        engine network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' n2
        engine network inspect --verbose -f '{{range .Containers}}{{.Name}}{{end}} {{.Peers}} {{.Services}}' n2
        engine network inspect -v n1 | grep -cE '"(Peers|Services)"'
        engine network rm n2
        engine network prune -f
        engine network prune -f
        engine network rm n1 bridge
        engine network inspect nosuch
    """,
    "addresses": """
        engine network create --subnet 10.9.0.0/24 n1
        engine run -d --name web --network n1 --ip 10.9.0.77 --mac-address 02:11:22:33:44:55 --network-alias al \\
            busybox sleep 100
        engine inspect -f '{{(index .NetworkSettings.Networks "n1").IPAddress}}' web
        engine inspect -f '{{(index .NetworkSettings.Networks "n1").MacAddress}}' web
        engine exec web cat /sys/class/net/eth0/address
        engine run --rm --network n1 busybox busybox nslookup -type=a al 2>&1 | grep -o '^Address: 10.9.0.77'
        engine run --rm --network n1 --ip 10.9.0.77 busybox
        engine run --rm --network n1 --ip 10.8.0.5 busybox
        engine run --rm --network n1 --ip 10.9.0.255 busybox
        engine run --rm --network host --network-alias al busybox
        engine run --rm --network none --network-alias al busybox
        engine run --rm --network host --link web busybox
        engine run --rm --mac-address bad busybox
    """,
    "connect": """
        engine network create n1
        engine run -d --name web busybox sleep 100
        engine network connect --alias other n1 web
        engine inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' web
        engine exec web ls /sys/class/net
        engine exec web sh -c 'grep -c $(hostname) /etc/hosts'
        engine run --rm --network n1 busybox busybox nslookup -type=a other | grep -A1 ^Name | grep -c ': 17'
        engine network connect n1 web
        engine restart -t 0 web
        engine exec web ls /sys/class/net
        engine network disconnect bridge web
        engine exec web ls /sys/class/net
        engine exec web sh -c 'grep -c 00000000 /proc/net/route'
        engine network disconnect bridge web
        engine network disconnect n1 web
        engine network disconnect n1 nosuch
        engine network disconnect -f n1 nosuch
        engine network connect nosuch web
        engine network connect n1 nosuch
        engine create --name still busybox
        engine network connect n1 still
        engine run -d --name host --network host busybox sleep 100
        engine network connect n1 host
    """,
    "connect with links": """
        ask() { engine exec $1 busybox nslookup -type=a $2 | grep -A1 ^Name | grep -o '^Address: 1' || echo unknown; }
        engine network create n1
        engine network create n2
        engine run -d --name db --network n1 busybox sleep 100
        engine run -d --name web --network n2 busybox sleep 100
        engine run -d --name other --network n1 busybox sleep 100
        engine network connect --link db:x:y n1 web
        engine network connect --link db:pg --link nosuch:none --link later:soon n1 web
        engine inspect -f '{{json (index .NetworkSettings.Networks "n1").Links}}' web
        ask web pg; ask web pg.n1; ask web db; ask web soon; ask other pg
        engine run -d --name later --network n1 busybox sleep 100
        ask web soon
        engine restart -t 0 db
        ask web pg
        engine network disconnect n1 db
        ask web pg
        engine network connect n1 db
        ask web pg
        engine restart -t 0 web
        ask web pg
        engine network disconnect n1 web
        ask web pg
        engine create --name still --network n1 busybox sleep 100
        engine network connect --link db:mine n2 still
        engine start still
        engine network connect n2 db
        ask still mine
    """,
    "link": """
        engine run -d --name db -e A=b --expose 5432 busybox sleep 100
        engine run --rm --name web --link db:pg busybox sh -c 'env | grep PG | sort | sed "s/172[0-9.]*/<address>/"'
        engine run --rm --link db:pg busybox sh -c 'grep pg /etc/hosts | sed "s/172[0-9.]*/<address>/"'
        engine run --rm --link nosuch:x busybox
        engine stop -t 0 db
        engine run --rm --name web --link db:x busybox
    """,
}
NAMED = "ours says of which network"
DIFFERENCES = {
    "network": (
        Difference(r"10\.9\.0\.128(?!/25)", "10.9.0.129", "ours leaves out the first address of a range"),
        Difference("Pool overlaps", "network n3: Pool overlaps", NAMED),
    ),
    "addresses": (Difference("Address already in use", "network n1: Address already in use", NAMED),),
}


@pytest.mark.parametrize("verb", CASES)
def test_both_say_the_same(pair: Pair, verb: str) -> None:
    check_same(*pair.type(CASES[verb]), DIFFERENCES.get(verb, ()))
