"""What the driver of virtual machines says before there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.drivers.qemu.driver import QemuDriver
from machine.drivers.qemu.folders import Folders
from machine.model import Machine
from shoal.clock import SystemClock
from shoal.errors import NotFound, Unsupported


@pytest.fixture
def driver(tmp_path: Path) -> QemuDriver:
    return QemuDriver(Folders(tmp_path / "vms"), tmp_path, SystemClock(), tell=print)


def test_a_computer_without_qemu_hears_what_to_install_before_anything_is_made(
    driver: QemuDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="there is no qemu-system-x86_64 on this computer") as raised:
        driver.create("vm1", {})
    assert "apt-get install qemu-system-x86" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_there_is_not_is_named_but_removed_without_a_word(driver: QemuDriver) -> None:
    nobody = Machine("vm9", "")
    for verb in (driver.start, driver.stop, driver.kill, driver.restart, driver.state):
        with pytest.raises(NotFound, match="there is no virtual machine vm9"):
            verb(nobody)
    driver.remove(nobody)
