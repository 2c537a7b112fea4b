"""Layout: where a container is on its host, and what is hidden in it: what `inspect` shows and no record says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from agent.container.bundle import masked_paths, read_only_paths
from agent.container.held import Held
from agent.container.hostfiles import PATHS, source_of
from agent.container.isolation import CONTAINER_MODE
from shoal.errors import NotFound


class Folders(msgspec.Struct, frozen=True):
    """What a root is made of: `layers` from the top down, what is above them and written to, overlayfs' own folder, and
    where all of it together is, as long as it runs."""

    layers: Sequence[str] = ()
    upper: str = ""
    work: str = ""
    merged: str = ""


class Layout(msgspec.Struct, frozen=True):
    """The files are empty before the first start. `exec_ids` are of the commands that run in it besides its own,
    `network_ids` of the networks that it is to be on, by name."""

    folders: Folders
    hosts_path: str = ""
    hostname_path: str = ""
    resolv_conf_path: str = ""
    masked_paths: Sequence[str] = ()
    read_only_paths: Sequence[str] = ()
    exec_ids: Sequence[str] = ()
    network_ids: Mapping[str, str] = {}


def layout(
    held: Held,
    layers: Sequence[str],
    *,
    folder: Callable[[str], Path],
    find: Callable[[str], Held],
    thermal: Sequence[str],
    network_ids: Mapping[str, str],
) -> Layout:
    """`folder` and `find` are of any container by its id, `thermal` the host's files that are masked besides."""
    own, spec = folder(held.id), held.record.container.spec
    owner = _owner(held, find) if held.state.boot_id else None
    hosts, hostname, resolv_conf = (source_of(folder(owner), each) if owner else "" for each in PATHS)
    return Layout(
        folders=Folders(
            layers=layers,
            upper=str(own / "upper"),
            work=str(own / "work"),
            merged=f"/proc/{held.state.status.pid}/root" if held.alive else "",
        ),
        hosts_path=hosts,
        hostname_path=hostname,
        resolv_conf_path=resolv_conf,
        masked_paths=masked_paths(spec, thermal),
        read_only_paths=read_only_paths(spec),
        exec_ids=held.commands.running(),
        network_ids=network_ids,
    )


def _owner(held: Held, find: Callable[[str], Held]) -> str:
    """Whose network it shares, and with it the files; itself, mostly. Empty where that is gone."""
    try:
        while (network := held.record.container.networks[0].network).startswith(CONTAINER_MODE):
            held = find(network.removeprefix(CONTAINER_MODE))
    except NotFound:
        return ""
    return held.id
