"""Rack: hosts inside this machine that share an underlay, and the switch of each. What happens behind the switch is
`boot`'s.

What is remembered of a host is in a file, so that a host that was turned off, or this machine, finds it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import shoal
from machine.drivers.local import cgroup
from machine.drivers.local.tool import wait_until
from machine.drivers.local.underlay import FIRST_HOST, LAST_HOST, Underlay
from shoal.errors import Conflict, DeadlineExceeded, Exhausted, NotFound, ShoalError, Unavailable
from shoal.files import write_atomic

_PACKAGES = f"{Path(__file__).parents[3]}:{Path(shoal.__file__).parents[1]}"
_LOG_END_BYTES = 500
_ASKED_S = 1.0


class Host(NamedTuple):
    """`tree` is the root file system below its own ("/": this machine's), `init` what becomes its PID 1 there.

    `kept` are folders of its disk by where it sees them, `shown` folders of this machine that it may read, `files` what
    it finds written at each boot. `authorized` is the public key that its sshd lets in as root; `options` are whoever's
    who made it.
    """

    name: str
    address: str
    machine_id: str
    tree: str
    init: Sequence[str]
    environment: Mapping[str, str]
    kept: Mapping[str, str]
    shown: Sequence[str] = ()
    files: Mapping[str, str] = {}
    authorized: str = ""
    memory_bytes: int = 0
    cpus: float = 0
    options: Mapping[str, str] = {}


class Rack:
    """What is in `run` is gone when this machine restarts; `disk` has what a host keeps, `homes` its record and its
    changes to its tree."""

    def __init__(self, name: str, run: Path, *, disk: Path, homes: Path) -> None:
        self.name = name
        self.run = run
        self.disk = disk
        self.homes = homes
        self.underlay = Underlay(name, disk, run / "underlay")

    @property
    def cgroup(self) -> str:
        return f"shoal-{self.name}"

    def home(self, name: str) -> Path:
        return self.homes / name

    def log(self, name: str) -> Path:
        return self.disk / name / "log" / "boot.log"

    def hosts(self) -> list[Host]:
        """By name; n2 before n10."""
        return [self.get(name) for name in self._names()]

    def find(self, name: str) -> Host | None:
        try:
            said: dict[str, Any] = json.loads((self.home(name) / "host.json").read_text())
        except FileNotFoundError:
            return None
        return Host(**said)

    def get(self, name: str) -> Host:
        host = self.find(name)
        if host is None:
            raise NotFound(f"there is no host {name}", hint=f"there are: {', '.join(self._names()) or 'none'}")
        return host

    def save(self, host: Host) -> None:
        for folder in (self.home(host.name), self.disk / host.name):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.home(host.name) / "host.json", json.dumps(host._asdict(), indent=1).encode())

    def free_address(self) -> str:
        """The one after the last that was given, so that an address that a host had is not soon another's."""
        subnet = self.underlay.make()
        given = self.disk / "address"
        last = int(given.read_text()) if given.exists() else FIRST_HOST - 1
        taken = {int(host.address.rsplit(".", 1)[1]) for host in self.hosts()}
        for number in [*range(last + 1, LAST_HOST + 1), *range(FIRST_HOST, last + 1)]:
            if number not in taken:
                write_atomic(given, str(number).encode())
                return f"{subnet}.{number}"
        raise Exhausted(f"all addresses of {subnet}.0/24 are given to hosts")

    def boot(self, host: Host) -> None:
        """Returns once its PID 1 runs and its cable is in, or it has turned itself off. Raises Conflict for one that
        has power, Unavailable for one whose PID 1 does not stay."""
        if self.alive(host.name):
            raise Conflict(f"{host.name} is up already")
        self.underlay.make()
        self._lay_out(host)
        words = (self.name, str(self.run), str(self.disk), str(self.homes), host.name)
        with self._take_power(host.name) as power, self.log(host.name).open("ab") as log:
            self.pid_file(host.name).unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "machine.drivers.local.boot", *words, str(power)],
                cwd="/",
                env={**os.environ, "PYTHONPATH": _PACKAGES},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[power],
            )
        pid = self.pid_file(host.name)
        wait_until(lambda: pid.exists() or process.poll() is not None, f"{host.name} does not boot; see {log.name}")
        if process.poll():
            raise Unavailable(f"{host.name} does not boot: {self._last_words(host.name)}")

    def kill(self, name: str) -> None:
        """Cut the power: PID 1 dies, and with it everything in its pid namespace."""
        while self.powered(name):
            # One that only begins to boot has no PID 1 yet.
            for file in (self.pid_file(name), self._power(name)):
                with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                    os.kill(int(file.read_text()), signal.SIGKILL)
                    break
            with contextlib.suppress(DeadlineExceeded):
                wait_until(lambda: not self.powered(name), "", seconds=1)
        self.pid_file(name).unlink(missing_ok=True)
        self.underlay.unplug(self.get(name).address)
        cgroup.remove(f"{self.cgroup}/{name}")

    def pid(self, name: str) -> int:
        """Of its PID 1. Raises Unavailable while it is down."""
        self.get(name)
        if not self.alive(name):
            raise Unavailable(f"{name} is down", hint="start it")
        return int(self.pid_file(name).read_text())

    def alive(self, name: str) -> bool:
        return self.powered(name) and self.pid_file(name).exists()

    def powered(self, name: str) -> bool:
        """Whether it is up, or boots."""
        try:
            with self._power(name).open() as held:
                fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def pid_file(self, name: str) -> Path:
        """There while the host is up."""
        return self.run / name / "pid"

    def remove(self, name: str) -> None:
        """Whatever there is of it."""
        if self.find(name) is not None:
            self.kill(name)
        for folder in {self.home(name), self.disk / name, self.run / name}:
            if folder.exists():
                # Not half a host, if we are killed here.
                doomed = folder.with_name(f"-{name}")
                shutil.rmtree(doomed, ignore_errors=True)
                folder.rename(doomed)
        for each in {self.homes, self.disk, self.run}:
            for doomed in each.glob("-*"):
                shutil.rmtree(doomed, ignore_errors=True)

    def dismantle(self) -> None:
        """All of its hosts, and the rack itself."""
        for host in self.hosts():
            if self.powered(host.name):
                self.kill(host.name)
        self.underlay.remove()
        cgroup.remove(self.cgroup)
        for folder in (self.homes, self.disk, self.run):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another rack's are there
            self.run.parent.rmdir()

    def _names(self) -> list[str]:
        names = [path.parent.name for path in self.homes.glob("[!-]*/host.json")]
        return sorted(names, key=lambda name: (len(name), name))

    def _power(self, name: str) -> Path:
        return self.run / name / "power"

    @contextlib.contextmanager
    def _take_power(self, name: str) -> Iterator[int]:
        """The lock that says that a host has power, for the process behind its switch to inherit (flock(2)): there is
        no moment at which nobody has it, and none at which two have."""
        self._power(name).parent.mkdir(parents=True, exist_ok=True)
        with self._power(name).open("a+") as held:

            def taken() -> bool:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            try:
                # Whoever only asks has it for a moment.
                wait_until(taken, f"{name} is up already", seconds=_ASKED_S)
            except DeadlineExceeded as error:
                raise Conflict(str(error)) from error
            held.truncate(0)
            yield held.fileno()

    def _lay_out(self, host: Host) -> None:
        home = self.home(host.name)
        kept = [self.disk / host.name / folder for folder in host.kept.values()]
        for folder in (home / "upper", home / "work", home / "root", self.log(host.name).parent, *kept):
            folder.mkdir(parents=True, exist_ok=True)
        if not Path(host.tree).is_dir():
            raise Unavailable(f"{host.name} stands on {host.tree}, which is gone")
        (home / "tree").unlink(missing_ok=True)
        (home / "tree").symlink_to(host.tree)

    def _last_words(self, name: str) -> str:
        try:
            data = self.log(name).read_bytes()
        except OSError as error:
            raise ShoalError(f"{self.log(name)} cannot be read: {error.strerror}") from error
        lines = data[-_LOG_END_BYTES:].decode(errors="replace").splitlines()
        return lines[-1] if lines else f"see {self.log(name)}"
