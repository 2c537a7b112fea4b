"""What lets the user in: keys of the agent and of files, their certificates, passphrases and passwords.

Everything is asked once for all hosts and kept in memory alone: never in an argument, the environment or a file. Who
asks is an input (`Prompt`); without one, what would have to be asked is refused.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine.transport.config import Hop
from shoal.errors import PermissionDenied

if TYPE_CHECKING:
    import paramiko

# Asks the person at the terminal for a text that is not shown.
Prompt = Callable[[str], str]

_DEFAULT_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
_TRIES = 3


class Credentials:
    """Of one run. `password` and `sudo_password` are known beforehand when they came through a descriptor."""

    def __init__(self, prompt: Prompt | None, *, password: str = "", sudo_password: str = "") -> None:
        self._prompt = prompt
        self._password = password
        self._sudo_password = sudo_password
        self._keys: dict[str, paramiko.PKey | None] = {}
        # One question at a time, and one answer for all who wait.
        self._asking = threading.RLock()

    def password(self, hop: Hop) -> str:
        """Empty when there is none and nobody can be asked."""
        with self._asking:
            if not self._password and self._prompt:
                self._password = self._prompt(f"{hop.user}@{hop.name}'s password: ")
            return self._password

    def sudo_password(self, hop: Hop) -> str:
        """Raises PermissionDenied when there is none and nobody can be asked."""
        with self._asking:
            if not self._sudo_password and self._prompt:
                self._sudo_password = self._prompt(f"sudo password of {hop.user}: ")
            if not self._sudo_password:
                raise PermissionDenied(
                    f"sudo asks {hop.user} on {hop.address} for a password",
                    hint="give it through a descriptor with --sudo-password-fd, or on a terminal",
                )
            return self._sudo_password

    def keys(self, hop: Hop) -> Iterator[paramiko.PKey]:
        """All keys to try, in the order of OpenSSH: those of the agent that were named, of files, the agent's rest."""
        files = [Path(each) for each in hop.identities] or [
            Path("~/.ssh").expanduser() / each for each in _DEFAULT_NAMES
        ]
        held = self._of_agent(hop)
        named = [each for each in held if any(_same(each, path) for path in files)]
        yield from named
        for path in files:
            if path.exists() and not any(_same(each, path) for each in named):
                key = self._of_file(path)
                if key is not None:
                    yield key
        if not hop.identities_only:
            yield from (each for each in held if each not in named)

    def _of_agent(self, hop: Hop) -> list[paramiko.PKey]:
        if not hop.agent:
            return []
        import paramiko
        from paramiko.agent import AgentSSH

        agent, link = AgentSSH(), socket.socket(socket.AF_UNIX)
        try:
            # paramiko's own way in knows SSH_AUTH_SOCK alone, and no IdentityAgent.
            link.connect(hop.agent)
            agent._connect(link)  # type: ignore[attr-defined]
            return list(agent.get_keys())
        except (OSError, paramiko.SSHException):  # an agent that went away is no agent
            link.close()
            return []

    def _of_file(self, path: Path) -> paramiko.PKey | None:
        """None for a key that nobody can open, which is then not tried."""
        with self._asking:
            if str(path) not in self._keys:
                self._keys[str(path)] = self._load(path)
            return self._keys[str(path)]

    def _load(self, path: Path) -> paramiko.PKey | None:
        try:
            return _opened(path, None)
        except _Sealed:
            pass
        for _ in range(_TRIES if self._prompt else 0):
            assert self._prompt is not None
            phrase = self._prompt(f"Enter passphrase for key '{path}': ")
            if not phrase:
                break
            try:
                return _opened(path, phrase.encode())
            except PermissionDenied:  # the wrong one: what it opened was no key
                continue
        return None


class _Sealed(Exception):
    """The key wants a passphrase."""


def _opened(path: Path, phrase: bytes | None) -> paramiko.PKey:
    """The key in a file, with the certificate beside it. Raises PermissionDenied for one that cannot be read."""
    import paramiko
    from paramiko.pkey import UnknownKeyType

    try:
        return paramiko.PKey.from_path(path, phrase)  # type: ignore[arg-type]  # its types say str, and it takes bytes
    except (TypeError, paramiko.PasswordRequiredException) as error:
        raise _Sealed from error
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as error:
        raise PermissionDenied(f"the key {path} cannot be read: {error}") from error


def _same(key: paramiko.PKey, path: Path) -> bool:
    """Whether an agent's key is the one whose public half lies beside `path`."""
    try:
        words = path.with_name(f"{path.name}.pub").read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return False
    return len(words) > 1 and key.get_base64() == words[1]
