"""Every flag that docker has is either done or refused by name; none is unknown, none is both."""

from __future__ import annotations

import pytest

from cli.command import Command
from cli.group import load
from cli.refused import refusal
from cli.registry import COMMANDS

_RUN = """
    --add-host --annotation -a --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop --cgroup-parent
    --cgroupns --cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime -c
    --cpu-shares --cpus --cpuset-cpus --cpuset-mems --device --device-cgroup-rule --device-read-bps
    --device-read-iops --device-write-bps --device-write-iops --disable-content-trust --dns --dns-opt --dns-option
    --dns-search --domainname --entrypoint -e --env --env-file --expose --gpus --group-add --health-cmd
    --health-interval --health-retries --health-start-interval --health-start-period --health-timeout -h --hostname
    --init -i --interactive --io-maxbandwidth --io-maxiops --ip --ip6 --ipc --isolation --kernel-memory -l --label
    --label-file --link --link-local-ip --log-driver --log-opt --mac-address -m --memory --memory-reservation
    --memory-swap --memory-swappiness --mount --name --net --net-alias --network --network-alias --no-healthcheck
    --oom-kill-disable --oom-score-adj --pid --pids-limit --platform --privileged -p --publish -P --publish-all --pull
    -q --quiet --read-only --restart --rm --runtime --security-opt --shm-size --stop-signal --stop-timeout
    --storage-opt --sysctl --tmpfs -t --tty --ulimit --use-api-socket -u --user --userns --uts -v --volume
    --volume-driver --volumes-from -w --workdir
"""
_DOCKER = {
    "create": _RUN,
    "run": _RUN + "-d --detach --detach-keys --sig-proxy",
    "start": "-a --attach --checkpoint --checkpoint-dir --detach-keys -i --interactive",
    "stop": "-s --signal -t --timeout --time",
    "kill": "-s --signal",
    "rm": "-f --force -l --link -v --volumes",
    "ps": "-a --all -f --filter --format -n --last -l --latest --no-trunc -q --quiet -s --size",
    "exec": """
        -d --detach --detach-keys -e --env --env-file -i --interactive --privileged -t --tty -u --user -w --workdir
    """,
    "attach": "--detach-keys --no-stdin --sig-proxy",
    "update": """
        --blkio-weight --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime -c --cpu-shares --cpus --cpuset-cpus
        --cpuset-mems --kernel-memory -m --memory --memory-reservation --memory-swap --pids-limit --restart
    """,
    "logs": "--details -f --follow --since -n --tail -t --timestamps --until",
    "cp": "-a --archive -L --follow-link -q --quiet",
    "stats": "-a --all --format --no-stream --no-trunc",
    "commit": "-a --author -c --change -m --message -p --pause --no-pause",
    "inspect": "-f --format -s --size --type",
    "images": "-a --all --digests -f --filter --format --no-trunc -q --quiet --tree",
    "rmi": "-f --force --no-prune --platform",
    "build": """
        --add-host --allow --annotation --attest --build-arg --build-context --builder --cache-from --cache-to --call
        --cgroup-parent --check --compress --cpu-period --cpu-quota -c --cpu-shares --cpuset-cpus --cpuset-mems
        --disable-content-trust -f --file --force-rm --iidfile --isolation --label --load -m --memory --memory-swap
        --metadata-file --network --no-cache --no-cache-filter -o --output --platform --progress --provenance --pull
        --push -q --quiet --rm --sbom --secret --security-opt --shm-size --squash --ssh -t --tag --target --ulimit
    """,
    "volume create": """
        --availability -d --driver --group --label --limit-bytes --name -o --opt --required-bytes --scope --secret
        --sharing --topology-preferred --topology-required --type
    """,
    "volume ls": "--cluster -f --filter --format -q --quiet",
    "volume inspect": "-f --format",
    "volume rm": "-f --force",
    "volume prune": "-a --all --filter -f --force",
    "network create": """
        --attachable --aux-address --config-from --config-only -d --driver --gateway --ingress --internal --ip-range
        --ipam-driver --ipam-opt --ipv4 --ipv6 --label -o --opt --scope --subnet
    """,
    "network ls": "-f --filter --format --no-trunc -q --quiet",
    "network inspect": "-f --format -v --verbose",
    "network rm": "-f --force",
    "network prune": "--filter -f --force",
    "network connect": "--alias --driver-opt --gw-priority --ip --ip6 --link --link-local-ip",
    "network disconnect": "-f --force",
}


def done(path: str) -> set[str]:
    command: Command = load(path)
    return {
        name for each in command.reader.flags for name in (*each.names, *([each.negative] if each.negative else []))
    }


@pytest.mark.parametrize("path", _DOCKER)
def test_flags_are_done_or_refused(path: str) -> None:
    refused = {flag for flag in _DOCKER[path].split() if refusal(path, flag)}
    assert not done(path) & refused
    assert not set(_DOCKER[path].split()) - done(path) - refused


@pytest.mark.parametrize("path", [path for path in COMMANDS if COMMANDS[path].function])
def test_what_may_be_json_has_a_flag_for_it(path: str) -> None:
    flags = load(path).reader.flags
    if any("--format" in each.names and "'json'" in each.help for each in flags):
        assert "--json" in done(path)
