"""The driver of hosts inside this machine: each is a Debian with systemd as its PID 1 and an sshd, on an address of an
underlay that this machine reaches. They share its kernel, as containers do, and have no way out of it.

A host's record is written before the host is made, and every verb finds what one that was killed has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from machine.driver import VERBS, Made
from machine.drivers.local import tool, tree
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
_MEMORY = re.compile(r"([0-9]+)([kmgt]?)b?", re.ASCII | re.I)
_LEAST_MEMORY_BYTES = 64 << 20


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    """`tree` is the folder of a root file system to stand on, `packages` what a Debian has more than a node needs."""

    tree: str = ""
    packages: str = ""
    memory: str = ""
    cpus: float = 0


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
        said = _parse(name, options)
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

    def _record(self, name: str, said: _Options, options: Mapping[str, str]) -> Host:
        packages = {*tree.NODE, *filter(None, said.packages.split(","))}
        stands_on = Path(said.tree).absolute() if said.tree else tree.obtain(packages, self._trees, tell=self._tell)
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
                memory_bytes=_bytes(said.memory),
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


def _parse(name: str, options: Mapping[str, str]) -> _Options:
    try:
        said = msgspec.convert(dict(options), _Options, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"machine {name}: {error}", hint="options are tree, packages, memory and cpus") from error
    if said.tree and said.packages:
        raise InvalidArgument(f"machine {name}: a tree has the packages that it has", hint="leave one of them out")
    if said.memory and _bytes(said.memory) < _LEAST_MEMORY_BYTES:
        raise InvalidArgument(f"machine {name}: memory={said.memory} is too little", hint="64m is the least")
    if said.cpus < 0:
        raise InvalidArgument(f"machine {name}: cpus={said.cpus} is less than none")
    return said


def _bytes(text: str) -> int:
    """As docker writes it: 512m, 2g. 0 for nothing."""
    match = _MEMORY.fullmatch(text or "0")
    if match is None:
        raise InvalidArgument(f"memory={text} is no size", hint="write it as 512m or 2g")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]


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
