"""The files by which a container's libc finds names: `/etc/resolv.conf` and `/etc/hosts`. Pure, but for `Host`,
which reads this host's own; `agent/container` puts the files in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec

RESOLV_CONF = Path("/etc/resolv.conf")
# Where systemd-resolved lists the servers behind its own loopback address.
_UPLINK = Path("/run/systemd/resolve/resolv.conf")
# docker's choice when a host has none that a container could reach.
PUBLIC = ("8.8.8.8", "8.8.4.4")


class Resolvers(msgspec.Struct, frozen=True):
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> Resolvers:
    """Read a resolv.conf; of several `search` or `domain` lines the last counts (resolv.conf(5))."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return Resolvers(tuple(nameservers), search, tuple(options))


def reachable(own: Resolvers, uplink: Resolvers) -> tuple[str, ...]:
    """The nameservers that a container can ask too: not those on loopback; `uplink` stands in for them."""
    for candidate in (own, uplink):
        found = tuple(server for server in candidate.nameservers if not _is_loopback(server))
        if found:
            return found
    return PUBLIC


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


class Host:
    """This host's resolv.conf as it is now; read again when it is another one."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self._paths = (path, _UPLINK) if path == RESOLV_CONF else (path,)
        self._marks: list[tuple[int, ...]] = []
        self._known: tuple[Resolvers, tuple[str, ...]] = (Resolvers(), ())

    def resolvers(self) -> tuple[Resolvers, tuple[str, ...]]:
        """What it says, and the nameservers of it that containers can reach."""
        marks = [_mark(path) for path in self._paths]
        if marks != self._marks:
            own, uplink, *_ = (*map(_read, self._paths), Resolvers())
            self._known = own, reachable(own, uplink)
            self._marks = marks
        return self._known


def _mark(path: Path) -> tuple[int, ...]:
    """Another one when somebody has written to the file or replaced it."""
    try:
        about = os.stat(path)  # noqa: PTH116 - a hot path
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _read(path: Path) -> Resolvers:
    try:
        return parse(path.read_text(errors="replace"))
    except OSError:
        return Resolvers()


def resolv_conf(nameservers: Sequence[str], search: Sequence[str] = (), options: Sequence[str] = ()) -> str:
    """The text of a container's /etc/resolv.conf."""
    lines = [f"nameserver {server}" for server in nameservers]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def hosts_file(lines: Iterable[str]) -> str:
    """The text of a container's /etc/hosts: what docker begins it with, then `lines` ("ADDRESS\\tNAMES")."""
    beginning = (
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    )
    return "\n".join((*beginning, *lines)) + "\n"
