"""Containers: what `docker` and `shoal` say to the same lines, verb by verb."""

from __future__ import annotations

import pytest

from tests.differential.conftest import Difference, Pair, check_same

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

ERRNO = Difference(r"(executable file not found in \$PATH|permission denied)", r"\1", "ours adds the system call")

CASES = {
    "run": """
        engine run --rm busybox echo hi
        engine run --rm busybox sh -c 'echo out; echo err >&2; exit 3'
        engine run --rm busybox nosuch
        engine run --rm busybox /etc/passwd
        engine run --rm busybox sh -c 'kill -9 $$'
        echo input | engine run --rm -i busybox cat
        engine run --rm --entrypoint echo busybox word
        engine run --rm --restart always busybox true
        engine run --rm --nosuch busybox
        engine run
    """,
    "run -a": """
        echo hello | engine run -i --rm -a stdin -a stdout busybox cat
        engine run --rm -a stderr busybox sh -c 'echo out; echo err >&2'
        engine run --rm -a stdin busybox echo out
        printf abc | engine run --rm -i -a stdout busybox cat
        engine run --rm -a bad busybox
        engine run -d -a stdout busybox
        engine run -d --name none busybox nosuch 2>/dev/null | wc -w
        engine start -a none 2>/dev/null
    """,
    "names": """
        engine run -d --name web busybox sleep 100
        engine create --name web busybox
        engine create --name 'bad name' busybox
        engine rename web site
        engine rename site site
        engine ps --format '{{.Names}}'
    """,
    "create and start": """
        engine create --name web busybox echo hello
        engine ps
        engine ps -a --format '{{.Image}}|{{.Command}}|{{.Status}}|{{.Ports}}|{{.State}}|{{.Size}}|{{.LocalVolumes}}'
        engine start -a web
        engine start web
        engine wait web
        engine ps -a --format '{{.ID}}|{{.Status}}|{{.Networks}}|{{.Labels}}|{{.Mounts}}'
        engine start nosuch
    """,
    "ps": """
        engine run -d --name web --label tier=front -p 8080:80 busybox sleep 100
        engine create --name job busybox true
        engine ps
        engine ps -a
        engine ps -aq
        engine ps -q --no-trunc
        engine ps -l -q
        engine ps -n 1 --format '{{.Names}}'
        engine ps --format '{{json .Names}}'
        engine ps -q --format '{{.Names}}' 2>/dev/null
        engine ps -q --format table 2>/dev/null
        engine ps --format 'table {{.Names}}\\t{{.Image}}'
        engine ps -s
        for filter in id name=we label=tier label=tier=back status=created status=bad exited=0 ancestor=busybox \\
            volume=x network=bridge publish=8080 expose=80 health=none is-task=false since=web before=nosuch; do
            engine ps -a --format '{{.Names}}' --filter $filter
        done
        engine ps one
    """,
    "stop and kill": """
        engine run -d --name web busybox sh -c 'trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done'
        await said web ready
        engine start web
        engine stop web
        engine inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}' web
        engine stop web
        engine restart -t 0 web
        engine kill -s BAD web
        engine kill web
        engine inspect -f '{{.State.ExitCode}}' web
        engine kill web
        engine kill nosuch
        engine wait web nosuch
    """,
    "pause": """
        engine run -d --name web busybox sleep 100
        engine pause web
        engine info -f '{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}'
        engine pause web
        engine exec web true
        engine attach web
        engine ps --format '{{.Status}} {{.State}}'
        engine unpause web
        engine unpause web
    """,
    "rm": """
        engine run -d --name web busybox sleep 100
        engine rm web
        engine rm -f web
        engine rm web
        engine rm -f web
        engine create --name job -v /data busybox
        engine rm -v job
        engine volume ls -q
        engine rm
    """,
    "exec": """
        engine run -d --name web busybox sleep 100
        engine exec web echo hi
        engine exec web sh -c 'echo err >&2; exit 5'
        echo input | engine exec -i web cat
        engine exec -u web -w /tmp -e A=b web sh -c 'id; pwd; echo $A'
        engine exec -d web touch /made
        engine exec -d web nosuch
        engine exec --detach-keys bad web true
        engine exec -e A web sh -c 'echo $A'
        A=5 engine exec -e A web sh -c 'echo $A'
        engine exec -u :1000 web id
        engine exec web sh -c 'kill -9 $$'
        engine exec --env-file nosuch web true
        engine exec nosuch true
        for user in nosuch 0:nosuch; do engine exec -u $user web true >/dev/null 2>&1; echo $?; done
        for folder in relative /nosuch; do engine exec -w $folder web true >/dev/null 2>&1; echo $?; done
        engine stop -t 0 web
        engine exec web true
    """,
    "logs": """
        engine run -d --name web --label a=b --log-opt labels=a -v $PWD:/gate busybox \\
            sh -c 'echo one; until [ -e /gate/one ]; do sleep 0.1; done; echo two >&2'
        await said web one; touch one
        engine wait web
        engine logs web
        engine logs -f web
        engine logs --tail 1 web
        engine logs -n 0 web
        engine logs -t web
        engine logs --details web
        for lines in x '' 1.5 -5; do engine logs --tail "$lines" web; done
        engine logs --since 1h web
        engine logs --since once web 2>/dev/null
        engine logs --since 2099-01-01 web
        engine logs --until 1h web
        engine logs nosuch
        engine run --name mute --log-driver none busybox echo hi
        engine logs mute
        engine run --rm --log-driver local --log-opt max-size=1m --log-opt max-file=2 busybox echo hi
        engine run --rm --log-opt foo=bar busybox
    """,
    "journald": """
        engine run --rm --log-driver journald busybox true
        mkdir -p /run/systemd/journal; (setsid /lib/systemd/systemd-journald >/dev/null 2>&1 &)
        until [ -S /run/systemd/journal/socket ]; do sleep 0.1; done
        engine run -d --name web --log-driver journald --log-opt tag=x/{{.Name}} --log-opt labels=a --label a=b \\
            -v $PWD:/gate busybox sh -c 'gate() { until [ -e /gate/$1 ]; do sleep 0.1; done; }
                echo one; gate one; echo two >&2; gate two; printf part'
        for each in one two; do await said web $each; touch $each; done
        engine wait web
        await said web part
        engine logs web
        echo
        engine logs --tail 1 web
        echo
        engine run -d --name slow --log-driver journald -v $PWD:/gate busybox \\
            sh -c 'for i in 1 2 3; do echo $i; until [ -e /gate/$i ]; do sleep 0.1; done; done'
        engine logs -f --since 1h slow | while read line; do echo $line; touch $line; done
        engine run --rm --log-driver journald --log-opt max-size=1m busybox true
        engine inspect -f '{{.HostConfig.LogConfig.Type}}' web
        for field in MESSAGE PRIORITY CONTAINER_TAG IMAGE_NAME A SYSLOG_IDENTIFIER CONTAINER_PARTIAL_MESSAGE; do
            journalctl -q -o cat --output-fields=$field CONTAINER_NAME=web
        done
        kill $(pidof systemd-journald); rm -r /run/systemd /run/log/journal
    """,
    "attach": """
        engine run -d --name web -v $PWD:/gate busybox \\
            sh -c 'until [ -e /gate/seen ]; do echo early; sleep 0.1; done; echo late; exit 4'
        engine attach --no-stdin --detach-keys ctrl-x web | while read line; do touch seen; echo $line; done | uniq
        engine attach web
        engine attach nosuch
        engine run -d --name other --detach-keys bad busybox sleep 100
        engine attach --detach-keys bad other 2>&1 | tail -n 1
    """,
    "cp": """
        engine run -d --name web busybox sleep 100
        mkdir folder; echo data > folder/file
        engine cp -q folder web:/tmp 2>/dev/null || engine cp folder web:/tmp >/dev/null 2>&1
        engine exec web cat /tmp/folder/file
        engine exec web ls /tmp
        engine cp web:/tmp/folder copy >/dev/null 2>&1
        cat copy/file
        engine cp web:/etc/passwd - | tar t
        tar c folder | engine cp - web:/home
        engine exec web ls /home/folder
        engine cp web:/nosuch .
        engine cp web:/etc nosuch:/
        engine cp folder folder
    """,
    "diff": """
        engine run --name web busybox sh -c 'touch /new; rm /etc/group; echo >> /etc/passwd'
        engine diff web | sort
        engine diff nosuch
    """,
    "export": """
        engine create --name web busybox
        engine export web | tar t | sort | head -30
        engine export -o file.tar web
        ls
        engine export nosuch
    """,
    "commit": """
        engine run --name web busybox touch /new
        engine commit -m message -a author -c 'CMD ["ls", "/new"]' -c 'EXPOSE 80' web new:1
        engine run --rm new:1
        engine inspect -f '{{.Author}} {{.Comment}} {{json .Config.Cmd}} {{json .Config.ExposedPorts}}' new:1
        engine commit nosuch
        engine rmi new:1 >/dev/null
    """,
    "top": """
        engine run -d --name web busybox sleep 100
        engine top web | sed -n 1p
        engine top web -o pid,comm | sed 's/[0-9]*//'
        engine top nosuch
        engine stop -t 0 web
        engine top web
    """,
    "stats": """
        engine run -d --name web busybox sleep 100
        engine stats --no-stream --format '{{.Name}} {{.Container}} {{.PIDs}}' web
        engine stats --no-stream web | sed -n 1p
        engine stats --no-stream nosuch
    """,
    "update": """
        engine run -d --name web busybox sleep 100
        engine update -m 64m --memory-swap 64m web
        engine update --restart on-failure:3 --pids-limit 50 web
        engine inspect -f '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}' web
        engine inspect -f '{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}' web
        engine update web
        engine update -m 1k web
        engine update -m 1g nosuch
        engine update --cpus -1 web
        for change in '--cpu-period -1' '--cpu-shares -1'; do engine update $change web 2>/dev/null; done
        engine update --memory-reservation 1k web
        engine update --restart bad web 2>&1 | tail -n 1
    """,
    "ports": """
        engine run -d --name web -p 8080:80 -p 127.0.0.1:9000:90/udp busybox sleep 100
        engine port web | sort
        engine port web 80
        engine port web 90/udp
        engine port web 81
        engine port web x >/dev/null 2>&1; echo $?
        engine port web 0 >/dev/null 2>&1; echo $?
        engine port nosuch
        engine create --name other -p 8080:80 busybox
        engine start other
        engine run -d -P --expose 90 --name all busybox sleep 100
        engine port all | sed 's/:[0-9]*$/:<port>/'
        engine run --rm --network host -p 80:80 busybox
        engine run --rm --network container:web -p 80:80 busybox
        engine run --rm --network nosuch busybox
        engine run -d --name range -p 8080-8081:80 busybox sleep 100
        engine port range
        engine create -p 8080-8082:80-81 busybox
        engine create -p x:80 busybox
    """,
    "events": """
        begin=$(date +%s)
        engine run --name told busybox true
        engine rm told >/dev/null
        filters="--filter type=container --filter container=told"
        end=$(($(date +%s) + 1))
        engine events --since $begin --until $end $filters --format '{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'
        engine events --since $begin --until $end $filters --filter event=die --format '{{.Actor.Attributes.exitCode}}'
        engine events --since $begin --until $end $filters --filter event=create
        engine events --since $begin --until $end $filters --filter event=create --format \
            '{{.Status}} {{.ID}} {{.From}} {{.Scope}} {{.Time}} {{.Actor.ID}}' | sed -E 's/ [0-9]{10} / <time> /'
        engine events --since $begin --until $end $filters --filter event=create --filter nosuch=1 2>/dev/null
    """,
    "container prune": """
        engine run --name job busybox
        engine run -d --name web busybox sleep 100
        engine container prune -f --filter label=x
        engine container prune -f | sed -n 1,2p
        engine ps -a --format '{{.Names}}'
        engine container prune -f --filter foo=bar
    """,
    "inspect": """
        engine create --name mounts --mount type=bind,source=/tmp,target=/a,readonly,bind-propagation=rshared \\
            --mount type=bind,source=/tmp,target=/i,bind-nonrecursive \\
            --mount type=volume,source=vol,target=/b,volume-nocopy,volume-label=x=y --mount type=volume,target=/d \\
            --mount type=tmpfs,target=/c,tmpfs-size=1m,tmpfs-mode=700 --mount type=tmpfs,target=/j \\
            -v /etc:/e:ro --tmpfs /g:ro -v /h busybox
        engine inspect -f '{{json .HostConfig.Binds}} {{json .HostConfig.Mounts}} {{json .HostConfig.Tmpfs}}' mounts
        engine inspect -f '{{json .Config.Volumes}}' mounts
        engine create --name modes -v one:/a -v two:/b:ro -v three:/c:Z -v /d --mount type=volume,src=four,dst=/e,ro \
            -v /etc:/f:ro --mount type=bind,src=/etc,dst=/g,ro --tmpfs /h busybox
        engine inspect -f '{{range .Mounts}}{{println .Destination .Mode .RW}}{{end}}' modes | sort
        engine inspect -f '{{.State.Health}} {{.HostConfig.Init}} {{.Config.StopTimeout}}' modes
        engine create --name none busybox
        engine inspect -f '{{json .HostConfig.Mounts}} {{json .HostConfig.Tmpfs}}' none
        engine run -d --name web -e A=b -w /tmp -u web --hostname here --label a=b busybox sleep 100
        engine inspect -f '{{.State.Status}} {{.Name}} {{.Path}} {{.Args}} {{.RestartCount}} {{.Platform}}' web
        engine inspect -f '{{json .Config.Env}} {{json .Config.Labels}} {{.Config.User}} {{.Config.WorkingDir}}' web
        engine inspect -f '{{.Config.Hostname}} {{json .Config.Cmd}} {{.Config.Tty}} {{.Config.OpenStdin}}' web
        engine inspect -s -f '{{.SizeRw}}' web
        engine inspect -f '{{.HostConfig.AutoRemove}} {{.HostConfig.Privileged}} {{.HostConfig.ShmSize}}' web
        engine inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' web
        engine inspect -f '{{index .Config.Labels "a"}}|{{index .Config.Labels "nosuch"}}' web
        engine inspect -f '{{.HostConfig.Binds}} {{len .HostConfig.CapAdd}} {{json .HostConfig.ExtraHosts}}' web
        engine inspect nosuch
        engine inspect -f '{{.Name}}' nosuch
        engine inspect --type container nosuch
        engine inspect --type bad web
        engine inspect -f '{{.Nope}}' web >/dev/null
        engine inspect -f '{{' web 2>&1 | tail -n 1
        engine version -f '{{' 2>&1 | tail -n 1
        engine container prune -f --filter until=x 2>&1 | tail -n 1
        engine info -f '{{' 2>&1 | tail -n 1
        engine info -f '{{.LoggingDriver}} {{.CgroupDriver}} {{.OSType}} {{.Architecture}} {{.OperatingSystem}}'
        engine version -f '{{.Server.Os}}/{{.Server.Arch}} {{.Client.Os}}/{{.Client.Arch}}'
    """,
    "image": """
        touch file; tar c file | engine import -c 'LABEL a=b' -c 'EXPOSE 80' -c 'ENTRYPOINT ["/bin/echo"]' \
            -c 'CMD ["hi"]' -c 'VOLUME /vol' -c 'USER 5' -c 'WORKDIR /w' - lab >/dev/null
        engine create --name web --label c=d --expose 90 lab
        engine inspect -f '{{json .Config.Labels}} {{json .Config.ExposedPorts}} {{json .Config.Cmd}}' web
        engine inspect -f '{{json .Config.Entrypoint}} {{json .Config.Volumes}} {{.Config.User}}' web
        engine ps -a --filter label=a=b --format '{{.Names}} {{.Label "c"}} {{.Command}}'
        engine create --name other --entrypoint /bin/ls lab /x
        engine inspect -f '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{.Path}} {{json .Args}}' other
        engine run -d --name run --expose 81/udp -p 8080:80 --expose 82 busybox sleep 100
        engine ps --format '{{.Ports}}'
        engine inspect -f '{{json .NetworkSettings.Ports}}' run | sed 's/,{"HostIp":"::","HostPort":"8080"}//'
        engine rm -fv web other >/dev/null
        engine rmi lab >/dev/null
    """,
    "odd lines": """
        engine run --rm=false --name web busybox true
        engine ps -a --format '{{.Names}}'
        engine run --rm=maybe busybox
        engine run -dp 8080:80 --name=other busybox sleep 100
        engine run --rm -- busybox echo x
        engine run -z busybox
        engine exec -it other true
        engine exec other sh -c 'exit 300'
        engine exec
        engine port
        engine network 2>/dev/null
        engine help nosuch >/dev/null 2>&1; echo $?
        engine help ps | grep -c Usage:
        engine search --limit x y
        engine save busybox 2>/dev/null >/dev/full
        mkfifo pipe; exec 3<>pipe 4>pipe 3<&-  # nobody reads what goes to 4
        engine ps -a >&4
        engine kill -s 0 other
        engine stop -t 0 nosuch other
        engine run --rm --label '' busybox
        engine run --rm -e '' busybox
        engine run --rm --pids-limit 99999999999999999999 busybox
        engine run --rm -m nan busybox
        engine run --rm -p 99999999999:1 busybox
        engine start nosuch missing
    """,
    "health": """
        engine run -d --name web --health-cmd true --health-interval 300ms busybox sleep 100
        healthy() { engine ps -q --filter health=healthy | grep -q .; }
        await healthy
        engine ps --format '{{.Status}}'
        engine inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}}' web
        engine ps --filter health=healthy --format '{{.Names}}'
        engine run --rm --no-healthcheck --health-cmd true busybox
        engine run --rm --health-cmd true --health-interval 1us busybox
    """,
}
DIFFERENCES = {
    "run": (ERRNO,),
    "ps": (Difference(r'(?<="web"\n)web', "<id>", "of -q and --format later clients take -q"),),
}


@pytest.mark.parametrize("verb", CASES)
def test_both_say_the_same(pair: Pair, verb: str) -> None:
    check_same(*pair.type(CASES[verb]), DIFFERENCES.get(verb, ()))
