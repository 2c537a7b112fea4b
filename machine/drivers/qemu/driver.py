"""The driver "qemu": virtual machines on this computer, with their power.

A machine is a folder that is whole or absent, and a process that the kernel finds by it; so whoever is killed at any
line leaves one of "no machine", "off" and "on", and all verbs go on from there.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from machine.driver import VERBS, Made
from machine.drivers.qemu import base, disk, kvm, process, qmp, tap
from machine.drivers.qemu.arguments import PROGRAM, arguments
from machine.drivers.qemu.folders import Folders
from machine.drivers.qemu.options import Acceleration, Options, parse
from machine.drivers.qemu.vm import LOOPBACK, Folder, Vm
from machine.model import Machine, Ssh
from machine.port import State
from shoal.clock import Clock
from shoal.errors import Conflict, DeadlineExceeded, NotFound, Unavailable, Unsupported

# Emulated on a busy computer, Debian takes minutes.
BOOT_S = 900.0
STOP_S = 180.0
_AGAIN_S = 0.5
# A machine that is not far enough to hear of its power button is told again.
_PRESS_S = 5.0
_ARCHITECTURE = "x86_64"
_GREETING = b"SSH-"


class QemuDriver:
    """`shared` has the trees and bases that machines stand on; `tell` hears what takes long."""

    name = "qemu"
    abilities = VERBS

    def __init__(
        self,
        folders: Folders,
        shared: Path,
        clock: Clock,
        *,
        tell: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folders = folders
        self._shared = shared
        self._clock = clock
        self._tell = tell
        self._pause = pause

    def create(self, name: str, options: Mapping[str, str]) -> Made:
        if platform.machine() != _ARCHITECTURE:
            raise Unsupported(
                f'driver "qemu" makes machines on {_ARCHITECTURE} alone, and this is {platform.machine()}'
            )
        wanted = parse(options)
        for program in (PROGRAM, disk.PROGRAM):
            if shutil.which(program) is None:
                raise process.missing(program)
        vm = self._folders.of(name).read() or self._folders.make(name, wanted, self._ground(wanted))
        if vm.options != wanted:
            raise Conflict(
                f"virtual machine {name} was made with other options: {_differing(vm.options, wanted)}",
                hint=f"to make it anew: shoal machine rm {name}",
            )
        return self._on(vm)

    def remove(self, machine: Machine) -> None:
        with self._folders.locked():
            with process.running(self._folders.of(machine.name).pidfile) as found:
                if found:
                    found.kill()
            self._folders.remove(machine.name)

    def start(self, machine: Machine) -> Made:
        return self._on(self._known(machine.name))

    def stop(self, machine: Machine) -> None:
        """As its power button does; one that has not shut down in STOP_S has its power cut."""
        folder = self._folders.of(self._known(machine.name).name)
        with process.running(folder.pidfile) as found:
            if found is None:
                return
            until = self._clock.monotonic() + STOP_S
            while self._clock.monotonic() < until:
                with contextlib.suppress(Unavailable), qmp.dial(folder.qmp) as said:
                    said.execute("system_powerdown")
                if found.ended_within(_PRESS_S):
                    return
            self._tell(f"{machine.name} did not shut down within {STOP_S:.0f} s; its power is cut")
            found.kill()

    def kill(self, machine: Machine) -> None:
        folder = self._folders.of(self._known(machine.name).name)
        with process.running(folder.pidfile) as found:
            if found:
                found.kill()

    def restart(self, machine: Machine) -> Made:
        self.stop(machine)
        return self.start(machine)

    def state(self, machine: Machine) -> State:
        folder = self._folders.of(self._known(machine.name).name)
        with process.running(folder.pidfile) as found:
            return State.RUNNING if found else State.STOPPED

    def close(self) -> None:
        """Nothing is open."""

    def _on(self, vm: Vm) -> Made:
        """It runs, and its sshd answers."""
        folder = self._folders.of(vm.name)
        with self._folders.locked(), process.running(folder.pidfile) as found:
            if found is None:
                vm = self._folders.with_free_port(vm)
                self._launch(vm, folder)
        self._await_sshd(vm, folder)
        ssh = Ssh("root", vm.port, (str(folder.key),), host_key=vm.host_key)
        return Made(LOOPBACK, ssh, advertise=vm.advertised)

    def _launch(self, vm: Vm, folder: Folder) -> None:
        with contextlib.ExitStack() as held:
            descriptor = tap.open_on(vm.options.bridge) if vm.options.bridge else None
            if descriptor is not None:
                held.callback(os.close, descriptor)
            acceleration = self._accelerated(vm.options.acceleration)
            argv = arguments(vm, folder, acceleration=acceleration, bridge_descriptor=descriptor)
            descriptors = () if descriptor is None else (descriptor,)
            process.start(argv, folder, descriptors=descriptors, clock=self._clock, pause=self._pause)

    def _ground(self, options: Options) -> disk.Ground:
        if options.image:
            return disk.look(Path(options.image))
        folder = base.obtain(self._shared / "bases", self._shared / "trees", tell=self._tell)
        return disk.look(folder / "disk", base=folder)

    def _accelerated(self, wanted: Acceleration) -> Acceleration:
        if wanted is Acceleration.TCG:
            return wanted
        why = kvm.why_not()
        if not why:
            return Acceleration.KVM
        if wanted is Acceleration.KVM:
            raise Unsupported(f"there is no KVM: {why}", hint="accel=tcg emulates the processor, some ten times slower")
        self._tell(f"no KVM ({why}): the machine is emulated, some ten times slower")
        return Acceleration.TCG

    def _await_sshd(self, vm: Vm, folder: Folder) -> None:
        until = self._clock.monotonic() + BOOT_S
        while not _greets(vm.port):
            with process.running(folder.pidfile) as found:
                if found is None:
                    raise Unavailable(f"{vm.name} went off before its sshd answered", hint=f"see {folder.console}")
            if self._clock.monotonic() > until:
                raise DeadlineExceeded(
                    f"the sshd of {vm.name} has not answered for {BOOT_S:.0f} s", hint=f"see {folder.console}"
                )
            self._pause(_AGAIN_S)

    def _known(self, name: str) -> Vm:
        vm = self._folders.of(name).read()
        if vm is None:
            raise NotFound(f"there is no virtual machine {name}")
        return vm


def _differing(one: Options, other: Options) -> str:
    return ", ".join(name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name))


def _greets(port: int) -> bool:
    """Whether an sshd says who it is; QEMU takes the connection before there is one."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_PRESS_S) as link:
            return link.recv(len(_GREETING), socket.MSG_WAITALL) == _GREETING
    except OSError:
        return False
