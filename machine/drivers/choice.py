"""Choice: which driver is meant by a name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from machine.driver import Driver
from machine.drivers.external import ExternalDriver
from machine.drivers.local.driver import LocalDriver
from machine.drivers.qemu.driver import QemuDriver
from machine.drivers.qemu.folders import Folders
from machine.drivers.ssh import SshDriver
from machine.fleet import Fleet
from machine.inventory import EXISTING, check_name
from machine.record import Records
from shoal.clock import Clock


@contextmanager
def driver_of(name: str, records: Records, *, dial: Callable[[], Fleet], clock: Clock) -> Iterator[Driver]:
    """The driver, for as long as the block lasts. Raises Unsupported for one that is not there."""
    driver: Driver
    if name in EXISTING:
        driver = SshDriver(dial, clock)
    elif name == LocalDriver.name:
        driver = LocalDriver(records.folder / "drivers" / name, records.folder / "trees", tell=_say)
    elif name == QemuDriver.name:
        folders = Folders(records.folder / "drivers" / name)
        driver = QemuDriver(folders, records.folder, clock, tell=_say)
    else:
        driver = ExternalDriver.open(check_name(name), records.folder / "drivers" / name)
    try:
        yield driver
    finally:
        driver.close()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
