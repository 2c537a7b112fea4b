"""The audit record's one writer, over a real store: with the change or not at all, in one chain, by several at once."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from manager.audit.chain import HEAD_KEY, HEAD_LOST, PREFIX, Faults, key_of
from manager.audit.denials import KINDS, Denials
from manager.audit.ledger import TRIM, Ledger
from manager.ca.authority import Seal
from manager.store import base
from manager.store.base import Guard, Put, Txn
from shoal import codec
from shoal.clock import ManualClock
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.audit import AuditEntry

LINE = AuditEntry(actor="user ann", verb="service create", decision="allowed", outcome="done")


@pytest.fixture
def ledger(manager: Any) -> Ledger:
    return Ledger(manager.store, manager.seal, manager.clock)


async def lines(manager: Any) -> list[AuditEntry]:
    return [codec.unpack(AuditEntry, record.value) for record in (await manager.store.read(PREFIX)).records]


async def faults(manager: Any, ledger: Ledger) -> list[str]:
    (stored,) = (await manager.store.read(HEAD_KEY)).records
    found = Faults(ledger.opened(stored.value))
    told = [list(found.of(record.key, record.value)) for record in (await manager.store.read(PREFIX)).records]
    return [*itertools.chain(*told), *found.end()]


async def test_a_change_and_its_line_are_one_transaction(manager: Any, ledger: Ledger) -> None:
    await ledger.write(Txn((Guard("/x/1", 0),), (Put("/x/1", b"1"),)), LINE)
    with pytest.raises(base.Conflict) as conflict:
        await ledger.write(Txn((Guard("/x/1", 0),), (Put("/x/1", b"2"),)), LINE)
    assert conflict.value.keys == ("/x/1",)
    assert [entry.number for entry in await lines(manager)] == [1]
    revisions = {record.mod_revision for record in (await manager.store.read("/")).records if "audit" in record.key}
    (changed,) = (await manager.store.read("/x/1")).records
    assert revisions == {changed.mod_revision}


async def test_those_that_wait_together_are_written_together(manager: Any, ledger: Ledger) -> None:
    before = (await manager.store.read("/")).revision
    await asyncio.gather(*(ledger.write(Txn((Guard(f"/x/{n}", 0),), (Put(f"/x/{n}", b""),)), LINE) for n in range(40)))
    assert [entry.number for entry in await lines(manager)] == list(range(1, 41))
    assert (await manager.store.read("/")).revision - before <= 3
    assert not await faults(manager, ledger)


async def test_one_that_is_in_the_way_of_itself_keeps_nobody(manager: Any, ledger: Ledger) -> None:
    await ledger.write(Txn((), (Put("/x/3", b""),)), LINE)
    done = await asyncio.gather(
        *(ledger.write(Txn((Guard(f"/x/{n}", 0),), (Put(f"/x/{n}", b""),)), LINE) for n in (1, 2, 3, 3, 2)),
        return_exceptions=True,
    )
    assert [isinstance(each, base.Conflict) for each in done] == [False, False, True, True, True]
    assert len(await lines(manager)) == 3


async def test_several_managers_write_one_chain(manager: Any) -> None:
    ledgers = [Ledger(manager.store, manager.seal, manager.clock) for _ in range(3)]
    for _ in range(10):
        await asyncio.gather(*(each.note(LINE) for each in ledgers))
    assert len(await lines(manager)) == 30
    assert not await faults(manager, ledgers[0])


async def test_whoever_goes_away_takes_nobody_along(manager: Any, ledger: Ledger) -> None:
    going = asyncio.create_task(ledger.note(LINE))
    staying = asyncio.create_task(ledger.note(LINE))
    await asyncio.sleep(0)
    going.cancel()
    await staying
    assert not await faults(manager, ledger)


async def test_a_store_that_fails_is_told_to_all_and_tried_again(manager: Any) -> None:
    class Broken:
        """A store in front of the real one that can be away."""

        away = True

        def __getattr__(self, name: str) -> Any:
            return getattr(manager.store, name)

        async def txn(self, txn: Txn) -> int:
            if self.away:
                raise Unavailable("no quorum")
            revision: int = await manager.store.txn(txn)
            return revision

    store: Any = Broken()
    ledger = Ledger(store, manager.seal, manager.clock)
    for each in await asyncio.gather(ledger.note(LINE), ledger.note(LINE), return_exceptions=True):
        assert isinstance(each, Unavailable)
    store.away = False
    await ledger.note(LINE)
    assert len(await lines(manager)) == 1


async def test_what_is_too_old_or_too_much_is_trimmed_and_the_rest_stays_verifiable(manager: Any) -> None:
    clock = ManualClock()
    ledger = Ledger(manager.store, manager.seal, clock)
    for _ in range(5):
        await ledger.note(LINE)
        await clock.advance(1)
    now_ns = clock.now_ns()
    assert await ledger.trim(keep=100, before_ns=now_ns - 2 * 10**9, line=AuditEntry(actor="manager")) == 3
    assert [entry.number for entry in await lines(manager)] == [4, 5, 6]
    assert (await lines(manager))[-1].object == "3 lines up to 3"
    assert await ledger.trim(keep=1, before_ns=0, line=AuditEntry(actor="manager")) == 2
    assert [entry.number for entry in await lines(manager)] == [6, 7]
    assert await ledger.trim(keep=2, before_ns=0, line=AuditEntry(actor="manager")) == 0
    assert not await faults(manager, ledger)


async def test_more_than_a_transaction_holds_is_trimmed_in_steps(manager: Any, ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.note(LINE) for _ in range(250)))
    steps = 0
    while await ledger.trim(keep=5, before_ns=0, line=AuditEntry(actor="manager")) == TRIM:
        steps += 1
    assert steps == 2
    assert len(await lines(manager)) == 6
    assert not await faults(manager, ledger)


OTHERS = Seal(b"x" * 32).seal(b"\x90", "audit head")


@pytest.mark.parametrize("forged", [None, b"forged", OTHERS], ids=["taken", "forged", "another cluster's"])
async def test_a_head_that_was_taken_or_forged_is_told_in_the_record_itself(manager: Any, forged: bytes | None) -> None:
    before = Ledger(manager.store, manager.seal, manager.clock)
    await before.note(LINE, LINE, LINE)
    head = Txn(deletes=(HEAD_KEY,)) if forged is None else Txn(puts=(Put(HEAD_KEY, forged),))
    await manager.store.txn(head)
    await manager.store.txn(Txn(deletes=(key_of(3),)))
    after = Ledger(manager.store, manager.seal, manager.clock)
    if forged is not None:
        with pytest.raises(InvalidArgument):
            after.opened(forged)
    await after.note(LINE)
    assert [entry.verb for entry in await lines(manager)][2] == HEAD_LOST
    assert await faults(manager, after) == ["the head was lost before line 3: lines may have been cut off there"]


async def test_a_flood_of_refusals_becomes_a_few_lines(manager: Any, ledger: Ledger) -> None:
    clock = ManualClock()
    denials = Denials(ledger, clock)
    writing = asyncio.create_task(denials.run())
    await clock.advance(0)
    for number in range(10_000):
        denials.add(AuditEntry(actor=f"user {number % 1000}", verb="node rm", decision="denied"))

    async def passed(seconds: int) -> list[AuditEntry]:
        for _ in range(seconds):
            await clock.advance(1)
            await ledger.note()  # comes after what the clock has set off
        return [entry for entry in await lines(manager) if entry.decision == "denied"]

    first = await passed(2)
    assert [entry.count for entry in first] == [1] * KINDS
    whole = await passed(62)
    assert sum(entry.count for entry in whole) == 10_000
    assert len(whole) <= 2 * KINDS + 1
    assert whole[-1].actor == "others"
    writing.cancel()
