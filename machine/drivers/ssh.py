"""The driver of hosts that exist: it makes none and removes none. It can restart them, and tells whether they answer.

A host counts as restarted once it says another moment of its boot than before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

import msgspec

from machine.driver import Made, cannot
from machine.fleet import Fleet
from machine.model import Machine, Ssh
from machine.port import State, states
from machine.provision.step import Command
from machine.transport.config import Config
from shoal.clock import Clock
from shoal.errors import DeadlineExceeded, InvalidArgument, ShoalError, Unavailable

RESTART_S = 600.0
_AGAIN_S = 1.0
_ANSWER_S = 10.0
# Of a virtual machine the first counts, of a host that shares its kernel with others the second (proc_pid_stat(5)).
_BOOT = "cat /proc/sys/kernel/random/boot_id; cut -d')' -f2 /proc/1/stat | cut -d' ' -f21"
# Not at once: who asked is to hear that it begins.
_REBOOT = "(sleep 1; systemctl reboot || reboot || shutdown -r now) > /dev/null 2>&1 < /dev/null &"
_NO_POWER = "its power is not ours; to shut one down, run: shoal machine exec NAME -- poweroff"


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    user: str = ""
    port: int = 0
    key: str = ""
    jump: str = ""


class SshDriver:
    """`dial` makes an empty fleet."""

    name = "ssh"
    abilities = frozenset({"create", "remove", "restart", "state"})

    def __init__(self, dial: Callable[[], Fleet], clock: Clock, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._dial = dial
        self._clock = clock
        self._pause = pause

    def create(self, name: str, options: Mapping[str, str]) -> Made:
        try:
            said = msgspec.convert(dict(options), _Options, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"machine {name}: a host that exists is known by its address: {error}") from error
        keys = (said.key,) if said.key else ()
        return Made(said.address, Ssh(said.user, said.port, keys, jump=said.jump))

    def remove(self, machine: Machine) -> None:
        """It stays as it is."""

    def start(self, machine: Machine) -> Made:
        raise cannot(self.name, "start", machine.name, "turn it on where it stands")

    def stop(self, machine: Machine) -> None:
        raise cannot(self.name, "stop", machine.name, _NO_POWER)

    def kill(self, machine: Machine) -> None:
        raise cannot(self.name, "kill", machine.name, _NO_POWER)

    def restart(self, machine: Machine) -> Made:
        until = self._clock.monotonic() + RESTART_S
        with self._dial() as fleet:
            for error in fleet.dial([machine]).values():
                raise error
            before = fleet.host(machine.name).check(Command(("sh", "-c", _BOOT)))
            fleet.host(machine.name).check(Command(("sh", "-c", _REBOOT)))
        while self._boot_of(machine) in ("", before):
            if self._clock.monotonic() > until:
                raise DeadlineExceeded(f"{machine.name} did not start again within {RESTART_S:.0f} s")
            self._pause(_AGAIN_S)
        return Made(machine.address, machine.ssh)

    def state(self, machine: Machine) -> State:
        ((state, why),) = states([machine], Config.load(), timeout_s=_ANSWER_S)
        if why:
            raise Unavailable(f"{machine.name}: {why}")
        return state

    def close(self) -> None:
        """Nothing is open."""

    def _boot_of(self, machine: Machine) -> str:
        """The moment of its boot; empty while it does not answer."""
        with contextlib.suppress(ShoalError), self._dial() as fleet:
            if not fleet.dial([machine]):
                return fleet.host(machine.name).check(Command(("sh", "-c", _BOOT)))
        return ""
