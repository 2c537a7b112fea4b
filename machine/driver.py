"""Driver: who makes a host, turns it on and off, and takes it away again. What makes a node of it is `provision`.

`drivers/ssh` is for hosts that exist, `drivers/qemu` makes virtual machines, `drivers/external` speaks to a program of
somebody else, and `drivers/choice` knows which is meant. What every driver must do stands in tests/contract/driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from machine.model import Machine, Ssh
from machine.port import State
from shoal.errors import Unsupported

VERBS = frozenset({"create", "remove", "start", "stop", "kill", "restart", "state"})


class Made(msgspec.Struct, frozen=True):
    """Where a host is reached, and how. `advertise` is where other nodes reach it, if that is elsewhere."""

    address: str
    ssh: Ssh = Ssh()
    advertise: str = ""


class Driver(Protocol):
    """`abilities` are the names of those methods below that it has; the others raise Unsupported. All of them may be
    called again: a host that is there is made no second time, one that is gone is removed."""

    name: str
    abilities: frozenset[str]

    def create(self, name: str, options: Mapping[str, str]) -> Made:
        """A host that runs. Raises InvalidArgument for options that cannot be."""
        ...

    def remove(self, machine: Machine) -> None: ...

    def start(self, machine: Machine) -> Made:
        """Turn it on; where it is reached may be new."""
        ...

    def stop(self, machine: Machine) -> None:
        """Shut it down in good order."""
        ...

    def kill(self, machine: Machine) -> None:
        """Cut its power."""
        ...

    def restart(self, machine: Machine) -> Made:
        """Returns once it is on again."""
        ...

    def state(self, machine: Machine) -> State: ...

    def close(self) -> None: ...


def cannot(driver: str, verb: str, machine: str, hint: str = "") -> Unsupported:
    return Unsupported(f'driver "{driver}" cannot {verb} {machine}', hint=hint)
