"""Docker's flags that are refused by name: they exist, we know them, and we do not do them yet. A flag that is on
no list is a typing error and told as one."""

from __future__ import annotations

from cli.registry import COMMANDS

_RUN = """
    --cpu-count --cpu-percent
    --io-maxbandwidth --io-maxiops --ip6 --kernel-memory --link-local-ip
    --storage-opt --use-api-socket
"""
_UPDATE = "--kernel-memory"
_SERVICE = """
    --config --credential-spec --generic-resource --isolation --max-concurrent --memory-swap --memory-swappiness
    --rollback-delay --rollback-failure-action --rollback-max-failure-ratio --rollback-monitor --rollback-order
    --rollback-parallelism --secret --update-failure-action --update-max-failure-ratio --update-monitor
"""
_SERVICE_UPDATE = """
    --config-add --config-rm --generic-resource-add --generic-resource-rm --secret-add --secret-rm
"""
_BUILD = """
    --allow --annotation --attest --build-context --builder --call --cgroup-parent --check --compress
    --cpu-period --cpu-quota --cpu-shares -c --cpuset-cpus --cpuset-mems --disable-content-trust --isolation
    -m --memory --memory-swap --provenance --sbom --security-opt --squash
"""
# By one of the command's names; whoever has the same function has the same flags.
_TABLE = {
    "build": _BUILD,
    "builder prune": "--keep-storage",
    "context create": "--from",
    "run": _RUN,
    "create": _RUN,
    "update": _UPDATE,
    "service create": _SERVICE,
    "service update": _SERVICE + _SERVICE_UPDATE,
    "swarm init": "--data-path-addr --data-path-port --external-ca --max-snapshots --snapshot-interval",
    "swarm join": "--data-path-addr --listen-addr",
    "swarm update": "--external-ca --max-snapshots --snapshot-interval",
    "swarm ca": "--external-ca",
    "service logs": "--details",
    "pull": "--disable-content-trust",
    "push": "--disable-content-trust",
    "images": "--tree",
    "load": "--platform",
    "manifest create": "--insecure",
    "manifest inspect": "--insecure",
    "manifest push": "--insecure",
    "save": "--platform",
    "history": "--platform",
    "image inspect": "--platform",
    "rmi": "--platform",
    "rm": "-l --link",
    "start": "--checkpoint --checkpoint-dir",
    "network connect": "--driver-opt --gw-priority --ip6 --link-local-ip",
    "network create": "--aux-address --config-from --config-only --ingress --ipam-driver "
    "--ipam-opt --ipv4 --ipv6 --scope",
    "volume ls": "--cluster",
    "volume create": "--availability --group --limit-bytes --required-bytes --scope --secret --sharing "
    "--topology-preferred --topology-required --type",
}
_WINDOWS = "it is for containers of Windows"
_INSTEAD = {
    "--cpu-count": _WINDOWS,
    "--cpu-percent": _WINDOWS,
    "--io-maxbandwidth": _WINDOWS,
    "--io-maxiops": _WINDOWS,
    "--insecure": "the agent is started with the registries that are insecure",
    "--storage-opt": "an overlay has no limit of its own; keep data in a volume on a file system of the wanted size",
    "--kernel-memory": "kernels do not limit it any more; -m counts the kernel's memory too",
    "--ip6": "networks are IPv4 only",
    "--link-local-ip": "networks are IPv4 only, without link-local addresses",
}


def refused(path: str) -> list[str]:
    """Docker's flags of the command at `path` that we do not have."""
    entry = COMMANDS.get(path)
    tables = [flags for name, flags in _TABLE.items() if entry and COMMANDS[name].function == entry.function]
    return " ".join(tables).split()


def refusal(path: str, flag: str) -> str:
    """The sentence for a flag of the command at `path`; empty when docker does not have it either."""
    if flag not in refused(path):
        return ""
    instead = _INSTEAD.get(flag, "")
    return f"flag {flag} of 'shoal {path}' is not supported yet" + (f"; {instead}" if instead else "")
