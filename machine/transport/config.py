"""The user's ssh_config, with Include, as the way to one host: where to dial, as whom, through whom.

paramiko reads Host and Match; what it leaves out, Include, is put in its place in the text before. An included file is
part of the block that includes it, and the block goes on behind it (ssh_config(5)).
"""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machine.model import SSH_PORT, Machine
from shoal.errors import InvalidArgument

if TYPE_CHECKING:
    import paramiko

_DEEPEST = 16
_MOST_JUMPS = 8


class Hop(msgspec.Struct, frozen=True):
    """One host to log in to. `name` is what known_hosts knows it by, `pinned` a fingerprint that it must show."""

    address: str
    port: int
    user: str
    name: str
    identities: tuple[str, ...] = ()
    identities_only: bool = False
    known_hosts: tuple[str, ...] = ()
    agent: str = ""
    proxy_command: str = ""
    pinned: str = ""

    @property
    def shown(self) -> str:
        return f"{self.user}@{self.address}:{self.port}"

    @property
    def known_as(self) -> str:
        """How known_hosts writes it (sshd(8))."""
        return self.name if self.port == SSH_PORT else f"[{self.name}]:{self.port}"


class Config:
    """What the files say; of each option the first value that is found counts, so the user's file goes first."""

    def __init__(self, text: str) -> None:
        import paramiko

        try:
            self._config: paramiko.SSHConfig = paramiko.SSHConfig.from_text(text)
        except paramiko.ConfigParseError as error:
            raise InvalidArgument(f"the ssh_config cannot be read: {error}") from error

    @classmethod
    def load(cls, files: Iterable[Path] | None = None) -> Config:
        """Read ~/.ssh/config and /etc/ssh/ssh_config, or the given files; those that are not there are empty."""
        if files is None:
            files = (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config"))
        # Each file begins outside of every block.
        return cls("".join(f"Host *\n{''.join(expanded(path))}\n" for path in files))

    def way(self, machine: Machine) -> tuple[Hop, ...]:
        """All hosts to log in to, the machine itself last. Raises InvalidArgument for a chain that never ends."""
        return tuple(self._hops(self._hop(machine.address, machine), self._jump(machine), depth=0))

    def _hops(self, last: Hop, jump: str, depth: int) -> Iterator[Hop]:
        if depth > _MOST_JUMPS:
            raise InvalidArgument(f"the way to {last.shown} has more than {_MOST_JUMPS} jumps")
        chain = [each.strip() for each in jump.split(",") if each.strip() and jump.lower() != "none"]
        for at, each in enumerate(chain):
            hop = self._named(each)
            # Only the first is reached by its own configuration's way; the others by the one before (ssh_config(5)).
            if at == 0:
                yield from self._hops(hop, self._lookup(_host_of(each)).get("proxyjump", ""), depth + 1)
            else:
                yield hop
        yield last

    def _jump(self, machine: Machine) -> str:
        return machine.ssh.jump or self._lookup(machine.address).get("proxyjump", "")

    def _named(self, text: str) -> Hop:
        """`[user@]host[:port]`, or a name that the configuration knows."""
        user, _, rest = text.removeprefix("ssh://").rpartition("@")
        host, port = _split_port(rest)
        hop = self._hop(host, None)
        return msgspec.structs.replace(hop, user=user or hop.user, port=port or hop.port)

    def _hop(self, host: str, machine: Machine | None) -> Hop:
        said = self._lookup(host)
        ssh = machine.ssh if machine else None
        identities = tuple(ssh.identities) if ssh and ssh.identities else tuple(said.get("identityfile", ()))
        known = said.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2").split()
        known += said.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2").split()
        return Hop(
            address=said.get("hostname", host),
            port=(ssh.port if ssh else 0) or int(said.get("port", SSH_PORT)),
            user=(ssh.user if ssh else "") or said.get("user", "") or _own_name(),
            name=said.get("hostkeyalias", "") or said.get("hostname", host),
            identities=tuple(str(Path(each).expanduser()) for each in identities),
            identities_only=bool(ssh and ssh.identities) or said.get("identitiesonly", "no") == "yes",
            known_hosts=tuple(str(Path(each).expanduser()) for each in known if each.lower() != "none"),
            agent=_agent(said.get("identityagent", "")),
            proxy_command="" if ssh and ssh.jump else _command(said),
            pinned=ssh.host_key if ssh else "",
        )

    def _lookup(self, host: str) -> dict[str, str]:
        return dict(self._config.lookup(host))


def expanded(path: Path, depth: int = 0) -> Iterator[str]:
    """A file's lines, with those of the files that it includes in their place."""
    if depth > _DEEPEST:
        raise InvalidArgument(f"{path}: too many levels of Include")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    block = "Host *"
    for line in lines:
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() in ("host", "match"):
            block = line.strip()
        if keyword.lower() != "include":
            yield f"{line}\n"
            continue
        for pattern in shlex.split(rest, comments=True):
            # A relative path is below ~/.ssh in a user's file, below /etc/ssh in the host's.
            folder = Path("/etc/ssh") if path.is_relative_to("/etc/ssh") else Path("~/.ssh").expanduser()
            for found in sorted(glob.glob(str(folder / Path(pattern).expanduser()))):  # noqa: PTH207  # may be absolute
                yield from expanded(Path(found), depth + 1)
        yield f"{block}\n"


def _command(said: dict[str, str]) -> str:
    command = said.get("proxycommand", "")
    return "" if command.lower() == "none" or "proxyjump" in said else command


def _agent(said: str) -> str:
    """The agent's socket; empty for none."""
    if said.lower() == "none":
        return ""
    if said in ("", "SSH_AUTH_SOCK"):
        return os.environ.get("SSH_AUTH_SOCK", "")
    return str(Path(os.path.expandvars(said)).expanduser())


def _own_name() -> str:
    import getpass

    return getpass.getuser()


def _host_of(text: str) -> str:
    return _split_port(text.removeprefix("ssh://").rpartition("@")[2])[0]


def _split_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host or (port and not port.isdecimal()):
        raise InvalidArgument(f'"{text}" is no host to jump over', hint="it looks like user@host:port")
    return host, int(port or 0)
