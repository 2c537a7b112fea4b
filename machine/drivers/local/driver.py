"""The driver of hosts inside this machine: each is a Debian with systemd as its PID 1 and an sshd, on an address of an
underlay that this machine reaches. They share its kernel, as containers do, and have no way out of it.

A host's record is written before the host is made, and every verb finds what one that was killed has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from machine.driver import VERBS, Made
from machine.drivers.local import tool, tree
from machine.drivers.local.options import Options, parse
from machine.drivers.local.rack import Host, Rack
from machine.drivers.local.root import make_key
from machine.model import SSH_PORT, Machine, Ssh
from machine.port import State
from shoal.errors import Conflict, DeadlineExceeded, InvalidArgument, PermissionDenied, Unavailable

_RUN = Path("/run/shoal-local")
_SYSTEMD = "lib/systemd/systemd"
# systemd(1), Signals: it begins to power off.
_POWER_OFF = signal.SIGRTMIN + 4
_STOP_S = 90.0
_ANSWER_S = 120.0
_CALL_S = 2.0


class LocalDriver:
    """`folder` is its own, `trees` has the Debians; `tell` hears what takes long. All of its hosts are on one rack."""

    name = "local"
    abilities = VERBS

    def __init__(self, folder: Path, trees: Path, *, tell: Callable[[str], None]) -> None:
        self._folder = folder.absolute()
        self._trees = trees
        self._tell = tell
        # Whoever keeps machines elsewhere has a rack of their own.
        name = f"l{hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:7]}"
        hosts = self._folder / "hosts"
        self.rack = Rack(name, _RUN / name, disk=hosts, homes=hosts)

    def create(self, name: str, options: Mapping[str, str]) -> Made:
        said = parse(options)
        _need_root()
        with self._alone(name):
            host = self.rack.find(name) or self._record(name, said, options)
            if dict(host.options) != dict(options):
                raise Conflict(f"{name} was made with other options", hint=f"remove it first: shoal machine rm {name}")
            return self._turn_on(host)

    def remove(self, machine: Machine) -> None:
        _need_root()
        if self._folder.exists():
            with self._alone(machine.name):
                self.rack.remove(machine.name)
            with _locked(self._folder):
                if not any(path.is_dir() for path in self.rack.homes.glob("*")):
                    self.rack.dismantle()

    def start(self, machine: Machine) -> Made:
        with self._known(machine) as host:
            return self._turn_on(host)

    def stop(self, machine: Machine) -> None:
        with self._known(machine) as host:
            self._turn_off(host)

    def kill(self, machine: Machine) -> None:
        with self._known(machine) as host:
            self.rack.kill(host.name)

    def restart(self, machine: Machine) -> Made:
        with self._known(machine) as host:
            self._turn_off(host)
            return self._turn_on(host)

    def state(self, machine: Machine) -> State:
        host = self.rack.get(machine.name)
        return State.RUNNING if self.rack.alive(host.name) else State.STOPPED

    def close(self) -> None:
        """Hosts live on."""

    def _record(self, name: str, said: Options, options: Mapping[str, str]) -> Host:
        packages = {*tree.NODE, *said.packages}
        stands_on = Path(said.tree) if said.tree else tree.obtain(packages, self._trees, tell=self._tell)
        if not (stands_on / _SYSTEMD).exists():
            raise InvalidArgument(f"machine {name}: {stands_on} is no root file system with systemd")
        key = self._key(name)
        make_key(key, comment=name)
        with _locked(self._folder):
            address = self.rack.free_address()
            host = Host(
                name=name,
                address=address,
                machine_id=os.urandom(16).hex(),
                tree=str(stands_on),
                init=[f"/{_SYSTEMD}"],
                # By it, systemd knows that it is not alone on a machine (systemd.io/CONTAINER_INTERFACE).
                environment={"container": "shoal"},
                # A container's root is an overlay, too, and one does not stand on another.
                kept={"var/lib/shoal": "shoal"},
                authorized=key.with_suffix(".pub").read_text().strip(),
                memory_bytes=said.memory_bytes,
                cpus=said.cpus,
                options=dict(options),
            )
            self.rack.save(host)
        return host

    def _turn_on(self, host: Host) -> Made:
        """Returns once its sshd answers."""
        if not self.rack.powered(host.name):
            self.rack.boot(host)
        tool.wait_until(lambda: self._answers(host), f"the sshd of {host.name} does not answer", seconds=_ANSWER_S)
        return Made(host.address, Ssh("root", identities=(str(self._key(host.name)),)))

    def _turn_off(self, host: Host) -> None:
        """In good order, or by the switch where that takes too long."""
        with contextlib.suppress(DeadlineExceeded, Unavailable, ProcessLookupError):
            os.kill(self.rack.pid(host.name), _POWER_OFF)
            tool.wait_until(lambda: not self.rack.powered(host.name), "it goes on", seconds=_STOP_S)
        self.rack.kill(host.name)

    def _answers(self, host: Host) -> bool:
        if not self.rack.powered(host.name):
            raise Unavailable(f"{host.name} went down while it booted", hint=f"see {self.rack.log(host.name)}")
        with contextlib.suppress(OSError), socket.create_connection((host.address, SSH_PORT), _CALL_S) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    def _key(self, name: str) -> Path:
        return self.rack.home(name) / "key"

    @contextlib.contextmanager
    def _known(self, machine: Machine) -> Iterator[Host]:
        _need_root()
        self.rack.get(machine.name)
        with self._alone(machine.name):
            yield self.rack.get(machine.name)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """The only one that does something about this host."""
        home = self.rack.home(name)
        while True:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home) as held:
                # Whoever had it before us may have removed it.
                if home.exists() and os.path.samestat(home.stat(), os.fstat(held)):
                    yield
                    return


def _need_root() -> None:
    if os.geteuid() != 0:
        raise PermissionDenied("hosts inside this machine are made of namespaces, which needs root", hint="use sudo")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
