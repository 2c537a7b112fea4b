"""A container's /etc/hosts, /etc/hostname and /etc/resolv.conf: files of the host, mounted over the image's.

`agent.network.hosts` says how such files look; here is what a container's options put into them. On the host's own
network they begin as the host's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agent.container.settle import HOST, HOST_GATEWAY
from agent.network import hosts
from agent.network.connection import Connection
from shoal import ids
from shoal.model.container import Container

PATHS = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def write_host_files(
    folder: Path, container: Container, hostname: str, connection: Connection, linked: Sequence[str] = ()
) -> None:
    """Into `folder`, under the last part of their names. In place, not renamed: a container that shares this network
    has the very file mounted."""
    on_host = container.networks[0].network == HOST
    texts = (
        _hosts(container, connection, linked, on_host=on_host),
        f"{hostname}\n",
        _resolv_conf(container, connection, on_host=on_host),
    )
    for path, text in zip(PATHS, texts, strict=True):
        descriptor = os.open(source_of(folder, path), _WRITE, 0o666)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def source_of(folder: Path, path: str) -> str:
    """Where in `folder` the file for `path` is."""
    return f"{folder}/{path.rpartition('/')[2]}"


def replace_host(folder: Path, container_id: str, line: str) -> None:
    """Put `line` in place of the one that names this container by its short id. In place, as above."""
    path = Path(source_of(folder, PATHS[0]))
    lines = path.read_text(encoding="utf-8").splitlines()
    short = ids.short(container_id)
    path.write_text("".join(f"{line if short in each.split() else each}\n" for each in lines), encoding="utf-8")


def extra_hosts(wanted: Sequence[str], gateway: str) -> list[str]:
    """Lines for the user's "name:address"; "host-gateway" stands for the host, which is at `gateway`."""
    pairs = (each.partition(":") for each in wanted)
    return [f"{gateway if address == HOST_GATEWAY else address}\t{name}" for name, _, address in pairs]


def _hosts(container: Container, connection: Connection, linked: Sequence[str], *, on_host: bool) -> str:
    gateway = next((each.gateway for each in connection.addresses if each.gateway), "127.0.0.1")
    lines = [*extra_hosts(container.spec.hosts, gateway), *linked, *connection.hosts]
    own = _text("/etc/hosts") if on_host else ""
    if own:
        return "\n".join((own.rstrip("\n"), *lines)) + "\n"
    return hosts.hosts_file(lines)


def _resolv_conf(container: Container, connection: Connection, *, on_host: bool) -> str:
    spec = container.spec
    asked = spec.dns or spec.dns_search or spec.dns_options
    own = _text("/etc/resolv.conf") if on_host and not asked else ""
    search = () if spec.dns_search == (".",) else spec.dns_search or connection.search
    return own or hosts.resolv_conf(spec.dns or connection.nameservers, search, spec.dns_options or connection.options)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
