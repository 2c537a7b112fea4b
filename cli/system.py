"""`version` and `info`: what runs here, and how it stands to a cluster."""

import platform
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cli.client import Client
from cli.command import command, flag
from cli.container.lifecycle import complain
from cli.endpoint import Contexts, Selection, current_context
from cli.output import words
from cli.output.functions import to_json
from cli.output.inspection import of_one
from shoal import __version__
from shoal.errors import ShoalError
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import ROLE_MANAGER


@command("[OPTIONS]", examples=["shoal version", "shoal version --format '{{.Server.Version}}'"])
async def version(
    selection: Selection,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> int:
    """Show the version of client, agent and manager"""
    facts: dict[str, Any] = {"Client": _client(selection), "Server": None, "Manager": None}
    failure = None
    try:
        async with Client(selection) as client:
            info = await client.system.GetInfo(engine_pb2.GetInfoRequest())
        facts["Server"] = {
            "Version": info.version,
            "Os": "linux",
            "Arch": _architecture(info.architecture),
            "KernelVersion": info.kernel,
            "Hostname": info.hostname,
        }
        if info.manager_version:
            facts["Manager"] = {"Version": info.manager_version}
    except ShoalError as error:
        failure = error
    if format:
        print(to_json(facts) if format == "json" else of_one(format).render(facts))
    else:
        print("\n\n".join(_section(title, facts[key]) for key, title in _TITLES.items() if facts[key]), flush=True)
    return complain(failure) if failure is not None else 0


_TITLES = {"Client": "Client", "Server": "Agent", "Manager": "Manager"}
_LABELS = {"Os": "OS", "Arch": "Architecture", "KernelVersion": "Kernel", "PythonVersion": "Python version"}


def _client(selection: Selection) -> dict[str, Any]:
    return {
        "Version": __version__,
        "PythonVersion": platform.python_version(),
        "Os": sys.platform,
        "Arch": _architecture(platform.machine()),
        "Context": current_context(selection, Contexts.load()),
    }


def _architecture(machine: str) -> str:
    """Images' name for what uname(2) says."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)


def _section(title: str, facts: dict[str, Any]) -> str:
    lines = [f"{title}:"]
    lines += [f" {_LABELS.get(key, key) + ':':<18} {value}" for key, value in facts.items()]
    return "\n".join(lines)


@command("[OPTIONS]", examples=["shoal info", "shoal info --format '{{.Swarm.LocalNodeState}}'"])
async def info(
    selection: Selection,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> None:
    """Display system-wide information"""
    if not format:
        print(f"{_section('Client', _client(selection))}\n\nServer:", flush=True)
    async with Client(selection) as client:
        found = await client.system.GetInfo(engine_pb2.GetInfoRequest())
    if format:
        facts = document(found)
        print(to_json(facts) if format == "json" else of_one(format).render(facts))
        return
    print("\n".join(f" {line}" for line in info_lines(found)))


def document(found: engine_pb2.GetInfoResponse) -> dict[str, Any]:
    """As `docker info --format` names it."""
    swarm = found.swarm
    return {
        "Name": found.hostname,
        "ServerVersion": found.version,
        "Containers": found.containers,
        "ContainersRunning": found.running - found.paused,
        "ContainersPaused": found.paused,
        "ContainersStopped": found.containers - found.running,
        "Images": found.images,
        "Driver": found.storage_driver,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(found.cgroup_version),
        "Runtimes": {name: {"path": name} for name in found.runtimes},
        "DefaultRuntime": found.default_runtime,
        "KernelVersion": found.kernel,
        "OperatingSystem": found.os,
        "OSType": "linux",
        "Architecture": found.architecture,
        "NCPU": found.cpus,
        "MemTotal": found.memory_bytes,
        "DockerRootDir": found.data_dir,
        "Swarm": {
            "NodeID": swarm.node_id,
            "NodeAddr": swarm.address,
            "LocalNodeState": swarm.state,
            "ControlAvailable": swarm.role == ROLE_MANAGER and bool(found.manager_version),
            "Error": swarm.error,
            "RemoteManagers": [{"Addr": each} for each in swarm.managers],
            "Cluster": {"ID": swarm.cluster_id},
        },
        "RegistryConfig": {
            "InsecureRegistryCIDRs": [each for each in found.insecure_registries if "/" in each],
            "InsecureRegistries": [each for each in found.insecure_registries if "/" not in each],
            "Mirrors": list(found.registry_mirrors),
        },
        "Warnings": list(found.warnings) or None,
    }


def info_lines(found: engine_pb2.GetInfoResponse) -> list[str]:
    """For people, in docker's layout."""
    swarm = found.swarm
    lines = [
        f"Containers: {found.containers}",
        f" Running: {found.running - found.paused}",
        f" Paused: {found.paused}",
        f" Stopped: {found.containers - found.running}",
        f"Images: {found.images}",
        f"Server Version: {found.version}",
        f"Storage Driver: {found.storage_driver}",
        f"Cgroup Version: {found.cgroup_version}",
        f"Runtimes: {' '.join(found.runtimes)}",
        f"Default Runtime: {found.default_runtime}",
        f"Swarm: {swarm.state}",
    ]
    if swarm.node_id:
        lines += [f" NodeID: {swarm.node_id}", f" ClusterID: {swarm.cluster_id}", f" Node Address: {swarm.address}"]
        lines.append(f" Is Manager: {str(bool(found.manager_version)).lower()}")
        lines += [f" Manager: {each}" for each in swarm.managers]
    if swarm.error:
        lines.append(f" Error: {swarm.error}")
    return [
        *lines,
        f"Kernel Version: {found.kernel}",
        f"Operating System: {found.os}",
        f"Architecture: {found.architecture}",
        f"CPUs: {found.cpus}",
        f"Total Memory: {words.binary_size(found.memory_bytes)}",
        f"Name: {found.hostname}",
        f"Root Dir: {found.data_dir}",
        *_list("Insecure Registries", found.insecure_registries),
        *_list("Registry Mirrors", found.registry_mirrors),
        *(f"WARNING: {each}" for each in found.warnings),
    ]


def _list(title: str, values: Sequence[str]) -> list[str]:
    """Under their title, where there are any."""
    return [f"{title}:", *(f" {each}" for each in values)] if values else []
