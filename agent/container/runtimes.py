"""Which OCI runtimes this host's containers may be run with: our own, crun and runc where they are, and what the
operator adds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from shoal.errors import InvalidArgument, Unsupported

OWN = "shoal"
_FOUND = ("crun", "runc")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runtimes(msgspec.Struct, frozen=True):
    """Programs by name, "" for ours. `default` is for containers that name none."""

    programs: Mapping[str, str] = msgspec.field(default_factory=lambda: {OWN: ""})
    default: str = OWN

    def chosen(self, name: str) -> str:
        """The name of the runtime that a wish comes to. Raises InvalidArgument in docker's words."""
        self.program(name or self.default)
        return name or self.default

    def program(self, name: str) -> str:
        """Raises InvalidArgument for one that this host does not have, or not any more."""
        if name not in self.programs:
            raise InvalidArgument(
                f"unknown or invalid runtime name: {name}", hint=f"this host has {', '.join(sorted(self.programs))}"
            )
        return self.programs[name]


def commandline() -> str:
    """Our own runtime as a program: what starts a container for which others take steps meanwhile, as hooks do. Raises
    Unsupported where it is not installed beside this interpreter."""
    path = Path(sys.executable).with_name("shoal-runtime")
    if not path.exists():
        raise Unsupported(f"hooks need {path}, which is not there", hint="install Shoal with its programs")
    return str(path)


def of_host(default: str = OWN, added: Iterable[str] = ()) -> Runtimes:
    """What is installed, and `added` ("NAME=PATH"). Raises InvalidArgument for what is no program, and for a default
    that is not there."""
    programs = {OWN: ""}
    for name in _FOUND:
        path = shutil.which(name, path=_PATH)
        if path:
            programs[name] = path
    for word in added:
        name, _, path = word.partition("=")
        if not name or name == OWN or not path.startswith("/"):
            raise InvalidArgument(f"runtime {word!r} is not NAME=PATH", hint="such as youki=/usr/bin/youki")
        if not os.access(path, os.X_OK):
            raise InvalidArgument(f"runtime {name}: {path} is no program")
        programs[name] = path
    runtimes = Runtimes(programs, default)
    runtimes.program(default)
    return runtimes
