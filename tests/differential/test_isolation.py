"""What a container is kept to: its surroundings, limits and isolation, line by line at `docker` and at `shoal`."""

from __future__ import annotations

import pytest

from tests.differential.conftest import Difference, Pair, check_same

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

CASES = {
    "surroundings": """
        printf 'A=1\\n# nothing\\nB=2\\n' > variables
        engine run --rm --env-file variables -e C=3 busybox sh -c 'echo $A $B $C $IMAGE'
        engine run --rm --env-file nosuch busybox
        printf 'A B=1\\n' > bad
        engine run --rm --env-file bad busybox 2>&1 | grep -o "variable 'A B' contains whitespaces"
        engine run --rm -e =x busybox
        engine run --rm -w relative busybox
        engine run --rm -w /made/here busybox pwd
        engine run --rm -u web:wheel busybox id
        engine run --rm -u web:nosuch busybox id
        engine run --rm -u 5000000000 busybox id
        engine run --rm -u web busybox sh -c 'echo $HOME'
        engine run --rm -e HOSTNAME=z -e HOME=/x busybox sh -c 'echo $HOSTNAME $HOME'
        engine run --rm --hostname a.b.c busybox hostname
        engine run --rm -u nosuch busybox
        engine run --rm --group-add wheel --group-add 77 busybox id
        engine run --rm --hostname h1 --domainname example.org busybox hostname
        touch taken
        engine run --rm --cidfile taken busybox
        engine run --rm --cidfile made busybox
        cat made; echo
        for verb in run create; do engine $verb --cidfile nosuch/file busybox >/dev/null 2>&1; echo $?; done
    """,
    "limits": """
        engine run --rm -m 1 busybox
        engine run --rm -m x busybox
        engine run --rm --cpus 99 busybox
        engine run --rm --cpus -1 busybox
        engine run --rm --memory-reservation 1k busybox
        engine run --rm --stop-timeout -1 busybox true
        engine run --rm --cpu-period 1 busybox
        engine run --rm --cpuset-cpus 99 busybox
        engine run --rm --memory-swap 10m busybox
        engine run --rm -m 10m --memory-swap 5m busybox
        engine run --rm --pids-limit x busybox
        engine run --rm --ulimit nofile=100:200 busybox sh -c 'ulimit -n'
        engine run --rm --ulimit bad=1 busybox
        engine run --rm --ulimit nofile=200:100 busybox
        engine run --rm --ulimit nofile=2000000000:2000000000 busybox 2>&1 | tail -n 1
        engine run --rm --oom-score-adj 2000 busybox
        engine run --rm --shm-size 1m busybox df /dev/shm
        for weight in x x:300 /dev/null:9 /dev/null:1001 /dev/null:x; do
            engine create --blkio-weight-device $weight busybox
        done
        engine create --cpu-rt-runtime x busybox
        engine create --cpu-rt-runtime 5000 --cpu-rt-period 1000 busybox
        engine create --name fifo --cpu-rt-runtime 5000 --cpu-rt-period 100000 busybox
        engine inspect -f '{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}' fifo
        engine update --cpu-rt-period 200000 fifo
        engine inspect -f '{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}' fifo
        engine run --rm --oom-kill-disable busybox
        engine run --rm --memory-swappiness 200 busybox
        engine run --rm --memory-swappiness 60 busybox true
    """,
    "isolation": """
        engine run --rm --cap-drop ALL --cap-add chown busybox grep CapEff /proc/self/status
        engine run --rm --cap-add BAD busybox
        engine create --name caps --cap-drop all --cap-add net_admin --cap-add CAP_CHOWN busybox
        engine inspect -f '{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}' caps
        engine run --rm --read-only busybox touch /x
        engine run --rm --read-only --tmpfs /run:size=1m busybox touch /run/x
        engine run --rm --sysctl net.ipv4.ip_forward=1 busybox cat /proc/sys/net/ipv4/ip_forward
        engine run --name bad --sysctl net.bad=1 busybox true >/dev/null 2>&1; echo $?
        engine inspect -f '{{.State.Status}} {{.State.ExitCode}}' bad
        engine run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status
        engine run --rm --device /dev/null:/dev/other:r busybox ls /dev/other
        engine run --rm --device /nosuch busybox
        engine run -d --name web busybox sleep 100
        engine run --rm --pid container:web busybox sh -c 'ps | grep -c "[s]leep 100"'
        engine run --rm --pid container:nosuch busybox
        engine run --rm --network none busybox sh -c 'ls /sys/class/net'
        engine run --rm --network container:web --hostname x busybox
        engine run --rm --uts host --hostname x busybox
        engine run --rm --userns host busybox cat /proc/self/uid_map
        engine run --rm --userns bad busybox
        engine run --rm --security-opt no-new-privileges:false busybox grep NoNew /proc/self/status
        engine run --rm --security-opt systempaths=unconfined busybox ls -d /proc/kcore
        engine run --rm --security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status
        engine run --rm --sysctl kernel.shmmax=100000 busybox cat /proc/sys/kernel/shmmax
        engine run --rm --tmpfs /t:exec,size=1m,mode=700 busybox sh -c 'grep " /t " /proc/mounts'
        engine run --rm --isolation default --disable-content-trust busybox
        engine run --rm --isolation hyperv busybox
        engine run --rm --init busybox sh -c 'ps | head -2 | tail -1 | grep -c init'
        engine run --rm --init --pid host busybox true
        engine run --rm --platform linux busybox true
        engine run --rm --platform linux/amd64 busybox true
        engine run --rm --platform linux/arm64 --pull never busybox true
    """,
    "ipc": """
        engine run -d --name web --ipc shareable --shm-size 1m busybox sh -c 'echo told > /dev/shm/file; sleep 100'
        await engine exec web test -s /dev/shm/file
        engine run --rm --ipc container:web busybox cat /dev/shm/file
        engine run --rm --ipc container:web busybox sh -c '[ $(readlink /proc/self/ns/ipc) = "'$(
            engine exec web readlink /proc/self/ns/ipc)'" ] && df /dev/shm | tail -1 | wc -l'
        engine inspect -f '{{.HostConfig.IpcMode}}' web
        engine restart -t 0 web
        await engine exec web test -s /dev/shm/file
        engine run --rm --ipc container:web busybox ls /dev/shm
        engine run -d --name own busybox sleep 100
        engine run --rm --ipc container:own busybox
        engine run --rm --ipc container:nosuch busybox
        engine run --rm --ipc bad busybox
    """,
    "cgroup": """
        engine run --rm --cgroupns host --cgroup-parent /outside busybox sh -c 'grep -q :/outside/ /proc/self/cgroup'
        engine run --name web --cgroup-parent /outside busybox
        engine inspect -f '{{.HostConfig.CgroupParent}}' web
    """,
}
DIFFERENCES = {
    "isolation": (
        Difference(
            r'\["net_admin","CAP_CHOWN"\] \["all"\]',
            '["CAP_CHOWN","CAP_NET_ADMIN"] ["ALL"]',
            "later clients write capabilities as the kernel does, and in order",
        ),
    ),
}


@pytest.mark.parametrize("subject", CASES)
def test_both_say_the_same(pair: Pair, subject: str) -> None:
    check_same(*pair.type(CASES[subject]), DIFFERENCES.get(subject, ()))
