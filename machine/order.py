"""Order: hosts that drivers are to make, for an inventory that names them or for one machine by itself.

What is ordered is recorded before its driver is asked, and asked for again until it is known to be there; then the
driver is not asked any more, and what becomes of the host is `apply`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from machine.drivers.choice import driver_of
from machine.fleet import Fleet
from machine.inventory import check_address
from machine.model import Inventory, Machine, Order
from machine.record import Record, Records
from shoal.clock import Clock
from shoal.errors import Conflict, ShoalError

# Each is a boot, and some are of this very machine.
_AT_ONCE = 4


def placed(inventory: Inventory, records: Records) -> Inventory:
    """The machines that have a host, where their drivers put it. Raises Conflict for one that was ordered otherwise."""
    return msgspec.structs.replace(inventory, machines=tuple(_placed(inventory, records)))


def unplaced(inventory: Inventory, records: Records) -> list[Machine]:
    """Those that `placed` leaves out: their hosts are still to be made."""
    there = {each.name for each in placed(inventory, records).machines}
    return [each for each in inventory.machines if each.name not in there]


def make_all(
    inventory: Inventory,
    wanted: Sequence[Machine],
    *,
    records: Records,
    dial: Callable[[], Fleet],
    clock: Clock,
    owner: str,
    tell: Callable[[str], None],
) -> dict[str, str]:
    """Have the hosts of `wanted` made, some at once; why not, by the machine's name, where one was not."""

    def one(machine: Machine) -> str:
        order = inventory.orders[machine.name]
        try:
            with records.held([machine.name], owner):
                tell(f"{machine.name}: driver {order.driver} makes its host")
                make(machine, order, records=records, dial=dial, clock=clock)
        except ShoalError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        said = dict(zip((each.name for each in wanted), pool.map(one, wanted), strict=True))
    return {name: why for name, why in said.items() if why}


def make(wanted: Machine, order: Order, *, records: Records, dial: Callable[[], Fleet], clock: Clock) -> Machine:
    """Have the driver make the host, or find the one that it made; the machine as it is reached there."""
    with driver_of(order.driver, records, dial=dial, clock=clock) as driver:
        record = Record(wanted, driver=order.driver, options=order.options, created_at_ns=clock.now_ns())
        records.save(msgspec.structs.replace(record, doing="make the host"))
        made = driver.create(wanted.name, order.options)
    advertise = wanted.advertise or (made.advertise and check_address(made.advertise))
    machine = msgspec.structs.replace(wanted, address=check_address(made.address), ssh=made.ssh, advertise=advertise)
    records.change(wanted.name, machine=machine)
    return machine


def _placed(inventory: Inventory, records: Records) -> Iterator[Machine]:
    for each in inventory.machines:
        order, known = inventory.orders.get(each.name), records.find(each.name)
        if order is None:
            yield each
        elif known is not None:
            if (known.driver, known.options) != (order.driver, order.options):
                raise Conflict(
                    f"machine {each.name} is of driver {known.driver} {_shown(known.options)}, and the inventory wants "
                    f"driver {order.driver} {_shown(order.options)}",
                    hint=f"remove it first: shoal machine rm {each.name}",
                )
            host = known.machine
            if host.address:
                advertise = each.advertise or host.advertise
                yield msgspec.structs.replace(each, address=host.address, ssh=host.ssh, advertise=advertise)


def _shown(options: dict[str, str]) -> str:
    return f"with {', '.join(f'{key}={value}' for key, value in sorted(options.items()))}" if options else "as it is"
