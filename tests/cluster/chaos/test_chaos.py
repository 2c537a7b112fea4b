"""The short storms, every round that broke something once, and cycles that must leave nothing, with one manager and
with three; `make chaos` is the long one."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from tests.cluster.chaos import cycle
from tests.cluster.chaos.fault import Fault, excused, parse, round_of, text_of
from tests.cluster.chaos.ledger import Ledger, Wish
from tests.cluster.chaos.rack import Rack, racked
from tests.cluster.chaos.trial import Trial, form

# One round each: daemons die while others stand still, a disk fills and a clock is wrong, a host dies and another is
# half deaf; the manager dies twice while all tasks move off one host.
STORM = [
    "kill n1 manager @0.2; kill n1 keeper @0.4; kill n2 keeper @0.3; kill n3 resolver @0.1; kill n3 holder @0.5",
    "fill n2 @0 +4; clock n1 3600 @0 +5; freeze n3 agent @0.5 +3",
    "power n3 @0 +2; freeze n1 manager @1 +2; deaf n2 n1 @0.5 +3",
    "drain n2 @0 +6; kill n1 manager @0.5; kill n1 manager @2.5; kill n3 agent @1",
]
# The leader dies, then its member of etcd stands still; most of etcd's disks are full; its members hear each other one
# way only, and agents their managers.
STORM_OF_THREE = [
    "kill n1 manager @0; freeze n1 etcd @1 +3; clock n2 -3600 @0 +4",
    "fill n1 @0 +3; fill n2 @0.2 +3; freeze n3 manager @0.5 +2",
    "deaf n2 n1:2380 @0 +4; deaf n3 n2:2377 @0 +4; kill n3 etcd @1",
]
# Each broke an invariant once.
REPRODUCERS = [
    # The agent's connection to its keeper ended for good, and the agent went on without one.
    "kill n2 keeper @2.2",
    # Restarts waited for the hour that the manager's clock had been ahead.
    "clock n1 3600 @0.5 +6; kill n3 keeper @3",
]
REPRODUCERS_OF_THREE = [
    # A certificate that a manager had issued while its clock was ahead let it into no etcd, and was kept.
    "clock n1 172800 @0.5 +7; clock n2 172800 @1 +9; clock n3 172800 @0 +6",
]


@pytest.fixture(scope="module", params=[1, 3], ids=["one", "three"])
def rack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    managers: int = request.param
    with racked(f"c{managers}{os.getpid() % 10000}", hosts=3, managers=managers) as rack:
        form(rack, tmp_path_factory.mktemp("chaos"))
        yield rack


async def each_of(rounds: Sequence[str]) -> AsyncIterator[list[Fault]]:
    for text in rounds:
        yield parse(text)


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_everything_holds_through_a_short_storm(rack: Rack) -> None:
    several = len(rack.managers) > 1
    storm = [*STORM_OF_THREE, *REPRODUCERS_OF_THREE] if several else [*STORM, *REPRODUCERS]
    asyncio.run(Trial(rack, random.Random(1)).run(each_of(storm)))


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_what_is_removed_is_gone(rack: Rack) -> None:
    left = cycle.run(rack, 4)
    assert not left, "\n".join(left)


def test_a_plan_is_made_by_its_seed_and_can_be_given_back() -> None:
    hosts = ["n1", "n2", "n3"]
    one, other = random.Random(5), random.Random(5)
    for number in range(600):
        managers = hosts if number % 2 else hosts[:1]
        faults = round_of(one, hosts, managers)
        assert faults == round_of(other, hosts, managers)
        assert parse(text_of(faults)) == faults
        assert {each.host for each in faults} | excused(faults) <= set(hosts)


def test_a_fault_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault is called burn; there are kill, freeze"):
        parse("burn n1 @0")


def test_an_acknowledged_write_that_is_missing_is_told() -> None:
    ledger = Ledger()
    ledger.acknowledge("a", Wish(1, 2))
    ledger.doubt("b", Wish(2, 1))
    assert ledger.settle({"a": Wish(1, 2)}) == []
    assert ledger.of("b") == {None}
    ledger.doubt("a", None)
    assert len(ledger.settle({"a": Wish(3, 3), "c": Wish(4, 1)})) == 2
