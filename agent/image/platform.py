"""Platforms: for which operating system and processor an image was made, as `linux/arm64/v8`."""

from __future__ import annotations

import os
import re

import msgspec

from shoal.errors import InvalidArgument

# uname's machine → what images call it (https://go.dev/doc/install/source#environment).
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}
# What a processor runs beside its own.
_OLDER = {"amd64": "386", "arm64": "arm"}
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


class Platform(msgspec.Struct, frozen=True):
    """`variant` may be empty: any."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def accepts(self, other: Platform) -> bool:
        """True when an image for `other` runs here; a variant that is not told fits any."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return not self.variant or not other.variant or self.variant == other.variant

    def runs(self, other: Platform) -> bool:
        """True when a machine of this platform runs what is made for `other`, as a 32-bit one."""
        older = _OLDER.get(self.architecture)
        return self.accepts(other) or (self.os, older) == (other.os, other.architecture)


def host() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse(text: str) -> Platform:
    """`os/architecture[/variant]`, one of the first two, or the host's for an empty text. Raises InvalidArgument."""
    if not text:
        return host()
    parts = text.split("/")
    if len(parts) == 1:
        parts = _completed(text)
    if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(f"invalid platform {text!r}", hint="write it as linux/amd64 or linux/arm64/v8")
    system, architecture, *variant = (part.lower() for part in parts)
    architecture, implied = _MACHINES.get(architecture, (architecture, ""))
    return Platform(system, architecture, variant[0] if variant else implied)


def _completed(word: str) -> list[str]:
    """A system gets this machine's architecture, an architecture this machine's system."""
    if word.lower() in _SYSTEMS:
        return [word, host().architecture]
    if word.lower() in _MACHINES or any(word.lower() == name for name, _ in _MACHINES.values()):
        return [host().os, word]
    return [word]
