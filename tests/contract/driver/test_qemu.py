"""A virtual machine for real: it is logged in at, restarted and removed (`make test-qemu`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machine.drivers.choice import driver_of
from machine.fleet import Fleet
from machine.model import Machine
from machine.provision.step import Command
from machine.record import Records
from machine.transport.config import Config
from machine.transport.connection import Rules
from machine.transport.credential import Credentials
from machine.transport.hostkey import Policy
from shoal.clock import SystemClock
from tests.contract.driver.test_driver import reached, share_ground

pytestmark = [
    # Without KVM a boot takes minutes, and the first one makes a Debian.
    pytest.mark.timeout(3600),
    pytest.mark.skipif("SHOAL_QEMU" not in os.environ, reason="make test-qemu"),
]


def run(machine: Machine, folder: Path, *argv: str) -> str:
    """As root on the machine, which must show the key that its driver said it would."""
    rules = Rules(Credentials(None), own_hosts=folder / "known_hosts", policy=Policy.STRICT, timeout_s=300)
    with Fleet(Config.load([]), rules, parallel=1) as fleet:
        assert fleet.dial([machine]) == {}
        return fleet.host(machine.name).check(Command(argv)).strip()


def test_a_machine_is_who_it_was_told_to_be_keeps_its_disk_and_leaves_nothing(tmp_path: Path) -> None:
    share_ground(tmp_path)
    with driver_of("qemu", Records(tmp_path), dial=lambda: None, clock=SystemClock()) as driver:  # type: ignore[arg-type,return-value]
        made = driver.create("h1", {"disk": "12g", "memory": "768m"})
        machine = reached(made)
        try:
            assert run(machine, tmp_path, "hostname") == "h1"
            assert made.advertise in run(machine, tmp_path, "ip", "-4", "-o", "address")
            assert int(run(machine, tmp_path, "df", "--output=size", "-B1", "/").split()[-1]) > 11 << 30
            boot = run(machine, tmp_path, "cat", "/proc/sys/kernel/random/boot_id")
            run(machine, tmp_path, "touch", "/root/kept")
            machine = reached(driver.restart(machine))
            assert run(machine, tmp_path, "cat", "/proc/sys/kernel/random/boot_id") != boot
            run(machine, tmp_path, "test", "-e", "/root/kept")
        finally:
            driver.remove(machine)
    assert list((tmp_path / "drivers" / "qemu").iterdir()) == []
