"""Host keys: whether the host at the other end is the one that was meant, by known_hosts files (sshd(8)).

A key that changed is a hard failure under every policy, and names both fingerprints. New hosts are accepted only where
the policy says so, and then written down in a file of our own; the user's files are read and never written.
"""

from __future__ import annotations

import base64
import enum
import fnmatch
import hashlib
import hmac
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from shoal.errors import PermissionDenied
from shoal.files import read_optional, write_atomic

_SAVING = threading.Lock()


class Policy(enum.Enum):
    """What to do with a host that nobody knows."""

    STRICT = "strict"
    ACCEPT_NEW = "accept-new"


class Entry(NamedTuple):
    """A line of known_hosts. `marker` is "", "@cert-authority" or "@revoked"."""

    marker: str
    patterns: str
    kind: str
    key: bytes
    where: str

    def matches(self, name: str) -> bool:
        if self.patterns.startswith("|1|"):
            _, _, salt, hashed = self.patterns.split("|")
            mine = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(mine, base64.b64decode(hashed))
        found = False
        for pattern in self.patterns.split(","):
            if fnmatch.fnmatchcase(name.lower(), pattern.removeprefix("!").lower().replace("[", "[[]")):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


class Shown(NamedTuple):
    """What a host showed in the key exchange: its key, or a certificate over it. `blob` is the public key alone."""

    kind: str
    blob: bytes
    certificate: bytes = b""


class KnownHosts:
    """The files that were named, the first of them our own."""

    def __init__(self, own: Path, others: Iterable[str | Path] = ()) -> None:
        self._own = own
        self._entries = [entry for path in (own, *map(Path, others)) for entry in _read(path)]

    def kinds(self, name: str) -> tuple[str, ...]:
        """The kinds of keys that are known for a host: it is asked for one of these first, so that a host that has
        several keys does not look changed. An authority's kinds are those of certificates."""
        kinds = [each.kind for each in self._of(name) if not each.marker]
        if any(each.marker == "@cert-authority" for each in self._of(name)):
            kinds.append("*-cert")
        return tuple(dict.fromkeys(kinds))

    def check(self, name: str, shown: Shown, *, policy: Policy, pinned: str = "") -> None:
        """Return if the host is the right one. Raises PermissionDenied for one that is not, or is not known."""
        mine = fingerprint(shown.blob)
        entries = list(self._of(name))
        if any(each.marker == "@revoked" and each.key == shown.blob for each in entries):
            raise PermissionDenied(f"the key of {name} ({mine}) is revoked")
        if pinned and pinned != mine:
            raise PermissionDenied(
                f"the key of {name} is {mine}, and the inventory says {pinned}",
                hint="somebody may be in between; if the host was made anew, change its host_key",
            )
        authorities = [each.key for each in entries if each.marker == "@cert-authority"]
        if shown.certificate and authorities:
            from machine.transport.hostcert import check_certificate

            check_certificate(name, shown.certificate, authorities)
            return
        keys = [each for each in entries if not each.marker]
        if any(each.key == shown.blob for each in keys):
            return
        same_kind = [each for each in keys if each.kind == shown.kind] or keys
        if same_kind:
            known = same_kind[0]
            raise PermissionDenied(
                f"the key of {name} has changed: it is {mine} ({shown.kind}), and {known.where} says "
                f"{fingerprint(known.key)} ({known.kind})",
                hint=f"somebody may be in between; if the host was made anew: ssh-keygen -f {known.where} -R '{name}'",
            )
        if policy is Policy.STRICT and not pinned:
            raise PermissionDenied(
                f"the key of {name} ({mine}, {shown.kind}) is not known",
                hint="compare it with the host's own, then log in once with ssh, or use --host-keys accept-new",
            )
        # One that is pinned as well: OpenSSH's own programs know no fingerprints, and read our file.
        self._save(name, shown)

    def _of(self, name: str) -> Iterator[Entry]:
        return (each for each in self._entries if each.matches(name))

    def _save(self, name: str, shown: Shown) -> None:
        line = f"{name} {shown.kind} {base64.b64encode(shown.blob).decode()}\n"
        with _SAVING:
            self._own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._own, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line.encode())  # one write(2) to an append-only descriptor is one line
            finally:
                os.close(descriptor)
        self._entries.append(Entry("", name, shown.kind, shown.blob, str(self._own)))


def forget(own: Path, name: str) -> None:
    """Nobody is known by that name in our own file any more: whoever has it next is another host."""
    lines = (read_optional(own) or b"").decode(errors="surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if line.split(" ", 1)[0] != name]
    if kept != lines:
        write_atomic(own, "".join(kept).encode(errors="surrogateescape"))


def fingerprint(blob: bytes) -> str:
    """As ssh-keygen -l shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _read(path: Path) -> Iterator[Entry]:
    """A line that cannot be read vouches for nobody."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except ValueError:
            continue
        yield Entry(marker, words[0], words[1], key, str(path))
