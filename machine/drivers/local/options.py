"""Options: what `--driver-opt` may say of a host inside this machine, parsed once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from machine.drivers import size
from shoal.errors import InvalidArgument

_KEYS = frozenset({"cpus", "memory", "packages", "tree"})
_CPUS = re.compile(r"\d{1,4}(\.\d{1,2})?", re.ASCII)
# deb-control(5), Package. A comma stands between two of them.
_PACKAGES = re.compile(r"[a-z0-9][a-z0-9+.-]+(,[a-z0-9][a-z0-9+.-]+)*", re.ASCII)
# Less, and systemd does not come up.
_LEAST_MEMORY_BYTES = 64 * size.MIB
_LEAST_CPUS = 0.01
# Many hosts share one machine, and each tells its cluster what it has: not all of it, each time.
_MEMORY_BYTES = 1024 * size.MIB
_CPUS_EACH = 1.0


class Options(msgspec.Struct, frozen=True):
    """`tree` is the folder of a root file system to stand on; without it, a Debian with `packages` more than a node
    needs."""

    tree: str = ""
    packages: tuple[str, ...] = ()
    memory_bytes: int = _MEMORY_BYTES
    cpus: float = _CPUS_EACH


def parse(texts: Mapping[str, str]) -> Options:
    """Raises InvalidArgument for an option that there is not, and for a value that cannot be."""
    unknown = sorted(texts.keys() - _KEYS)
    if unknown:
        hint = f"it has {', '.join(sorted(_KEYS))}"
        raise InvalidArgument(f'driver "local" has no option {", ".join(unknown)}', hint=hint)
    if len(texts.keys() & {"tree", "packages"}) == 2:
        raise InvalidArgument("a tree has the packages that it has", hint="leave out the option tree or packages")
    values: dict[str, object] = {}
    if "tree" in texts:
        values["tree"] = str(Path(texts["tree"]).absolute())
    if "packages" in texts:
        values["packages"] = _packages(texts["packages"])
    if "memory" in texts:
        values["memory_bytes"] = _memory(texts["memory"])
    if "cpus" in texts:
        values["cpus"] = _cpus(texts["cpus"])
    return msgspec.structs.replace(Options(), **values)


def _packages(text: str) -> tuple[str, ...]:
    if not _PACKAGES.fullmatch(text):
        raise InvalidArgument(f'option packages: "{text}" names none', hint="write them as etcd-server,curl")
    return tuple(text.split(","))


def _memory(text: str) -> int:
    memory_bytes = size.parse("memory", text)
    if memory_bytes < _LEAST_MEMORY_BYTES:
        raise InvalidArgument(f"option memory: {text} is too little", hint=f"at least {_LEAST_MEMORY_BYTES >> 20}m")
    return memory_bytes


def _cpus(text: str) -> float:
    if not _CPUS.fullmatch(text) or float(text) < _LEAST_CPUS:
        raise InvalidArgument(f'option cpus: "{text}" is no number of processors', hint="write it as 2 or 1.5")
    return float(text)
