"""Commands that turn machines on and off, as far as their drivers can."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from cli.command import argument, command
from cli.container.lifecycle import complain
from cli.machine.listing import DEFAULT
from cli.machine.reach import ReachFlags
from machine.record import Record
from shoal.clock import SystemClock
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from machine.driver import Driver, Made

Names = Annotated[list[str], argument()]


@command("[OPTIONS] [NAME...]", examples=["shoal machine start n1"])
def start(reach: ReachFlags, names: Names = [DEFAULT]) -> int:  # noqa: B006
    """Turn machines on"""
    return _each(reach, names, "Starting", lambda driver, record: driver.start(record.machine))


@command("[OPTIONS] [NAME...]", examples=["shoal machine stop n1 n2"])
def stop(reach: ReachFlags, names: Names = [DEFAULT]) -> int:  # noqa: B006
    """Shut machines down in good order"""
    return _each(reach, names, "Stopping", lambda driver, record: driver.stop(record.machine))


@command("[OPTIONS] [NAME...]", examples=["shoal machine kill n1"])
def kill(reach: ReachFlags, names: Names = [DEFAULT]) -> int:  # noqa: B006
    """Cut machines' power"""
    return _each(reach, names, "Killing", lambda driver, record: driver.kill(record.machine))


@command("[OPTIONS] [NAME...]", examples=["shoal machine restart n1"])
def restart(reach: ReachFlags, names: Names = [DEFAULT]) -> int:  # noqa: B006
    """Restart machines' hosts; each command returns once they answer again"""
    return _each(reach, names, "Restarting", lambda driver, record: driver.restart(record.machine))


def _each(reach: ReachFlags, names: list[str], doing: str, do: Callable[[Driver, Record], Made | None]) -> int:
    """One after the other, so that a cluster never loses them all; one that fails does not stop the others."""
    from machine.drivers.choice import driver_of

    records = reach.records()
    code = 0
    for record in records.named(names):
        name = record.machine.name
        print(f'{doing} "{name}"...', flush=True)
        try:
            with driver_of(record.driver, records, dial=reach.fleet, clock=SystemClock()) as driver:
                made = do(driver, record)
        except ShoalError as error:
            code = complain(error)
            continue
        if made is not None:
            records.change(name, machine=_reached(record, made))
    return code


def _reached(record: Record, made: Made) -> Any:
    """The machine where its driver says that it is now."""
    return msgspec.structs.replace(record.machine, address=made.address, ssh=made.ssh)
