"""Which hosts of an inventory are there, and which are still to be made by their drivers."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import msgspec
import pytest

from machine.fleet import Fleet
from machine.model import Inventory, Machine, Order, Role, Ssh
from machine.order import make_all, placed, unplaced
from machine.record import Record, Records
from shoal.clock import SystemClock
from shoal.errors import Conflict

N1 = Machine("n1", "10.0.0.1", Role.MANAGER)
N2 = Machine("n2", "", labels={"zone": "a"})
WANTED = Inventory((N1, N2), orders={"n2": Order("rented", {"size": "s"})})

# A driver that makes one host, and no other.
DRIVER = """\
#!{python}
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    answer = dict(jsonrpc="2.0", id=asked["id"], result=dict(abilities=["create"]))
    if asked["method"] == "create" and asked["params"]["name"] == "n2":
        answer["result"] = dict(address="10.0.0.2", user="ann", advertise="10.1.0.2")
    elif asked["method"] == "create":
        del answer["result"]
        answer["error"] = dict(code=1, message="all is let")
    print(json.dumps(answer), flush=True)
"""


def no_fleet() -> Fleet:
    raise AssertionError("nobody is dialled")


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    program = tmp_path / "bin" / "shoal-machine-driver-rented"
    program.parent.mkdir()
    program.write_text(DRIVER.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Records(tmp_path / "store")


def make(records: Records, wanted: Inventory) -> dict[str, str]:
    missing = unplaced(wanted, records)
    clock = SystemClock()
    return make_all(wanted, missing, records=records, dial=no_fleet, clock=clock, owner="me", tell=lambda _: None)


def test_what_is_ordered_is_made_once_and_found_again(records: Records) -> None:
    assert placed(WANTED, records).machines == (N1,)
    assert make(records, WANTED) == {}
    there = msgspec.structs.replace(N2, address="10.0.0.2", ssh=Ssh("ann"), advertise="10.1.0.2")
    assert placed(WANTED, records).machines == (N1, there)
    assert unplaced(WANTED, records) == []


def test_a_host_that_is_not_made_keeps_no_other_from_it_and_is_still_to_be_made(records: Records) -> None:
    both = msgspec.structs.replace(
        WANTED, machines=(N2, Machine("n3", "")), orders={"n3": Order("rented"), **WANTED.orders}
    )
    assert make(records, both) == {"n3": 'driver "rented": all is let'}
    assert [each.name for each in placed(both, records).machines] == ["n2"]
    assert [each.name for each in unplaced(both, records)] == ["n3"]


def test_a_machine_that_was_ordered_otherwise_is_refused(records: Records) -> None:
    records.save(Record(msgspec.structs.replace(N2, address="10.0.0.2"), driver="rented", options={"size": "m"}))
    with pytest.raises(Conflict, match=r"n2 is of driver rented with size=m, and the inventory wants .* size=s"):
        placed(WANTED, records)
