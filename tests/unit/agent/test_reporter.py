"""Statuses: the last one of each task, saved before it is sent, and sent again over a new stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from agent.reporter import BATCH_MAX, Reporter
from shoal.clock import ManualClock, settle
from shoal.errors import Exhausted
from shoal.model.task import TaskState, TaskStatus

PREPARING = TaskStatus(state=TaskState.PREPARING)
RUNNING = TaskStatus(state=TaskState.RUNNING)


class Disk:
    """Where statuses are saved; may be full."""

    def __init__(self) -> None:
        self.saved: list[dict[str, TaskStatus]] = []
        self.full = False

    async def save(self, statuses: Mapping[str, TaskStatus]) -> None:
        if self.full:
            raise Exhausted("the disk is full")
        self.saved.append(dict(statuses))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def reporter(disk: Disk, clock: ManualClock) -> AsyncIterator[Reporter]:
    reporter = Reporter(disk.save, clock=clock)
    running = asyncio.create_task(reporter.run())
    yield reporter
    running.cancel()


async def test_only_the_last_status_of_a_task_counts(reporter: Reporter, disk: Disk, clock: ManualClock) -> None:
    reporter.report("t1", PREPARING)
    reporter.report("t1", RUNNING)
    reporter.report("t2", PREPARING)
    await clock.advance(0.06)
    assert disk.saved == [{"t1": RUNNING, "t2": PREPARING}]
    assert await reporter.next_batch() == [("t1", RUNNING), ("t2", PREPARING)]


async def test_nothing_is_sent_before_it_is_saved(reporter: Reporter, clock: ManualClock) -> None:
    reporter.report("t1", RUNNING)
    reporter.resend_all()
    batch = asyncio.create_task(reporter.next_batch())
    await settle()
    assert not batch.done()
    await clock.advance(0.06)
    assert await batch == [("t1", RUNNING)]


async def test_a_new_stream_gets_everything_again(reporter: Reporter, clock: ManualClock) -> None:
    reporter.restore("t0", RUNNING)
    reporter.report("t1", PREPARING)
    await clock.advance(0.06)
    await reporter.next_batch()
    reporter.resend_all()
    assert dict(await reporter.next_batch()) == {"t0": RUNNING, "t1": PREPARING}


async def test_a_forgotten_task_is_not_reported(reporter: Reporter, clock: ManualClock) -> None:
    reporter.report("t1", RUNNING)
    reporter.report("t2", RUNNING)
    reporter.forget("t1")
    await clock.advance(0.06)
    reporter.resend_all()
    assert await reporter.next_batch() == [("t2", RUNNING)]


async def test_batches_are_bounded(reporter: Reporter, clock: ManualClock) -> None:
    for number in range(BATCH_MAX + 1):
        reporter.report(f"t{number}", RUNNING)
    await clock.advance(0.06)
    assert len(await reporter.next_batch()) == BATCH_MAX
    assert len(await reporter.next_batch()) == 1


async def test_a_full_disk_does_not_keep_the_manager_in_the_dark(
    reporter: Reporter, disk: Disk, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk.full = True
    reporter.report("t1", PREPARING)
    await clock.advance(0.06)
    assert await reporter.next_batch() == [("t1", PREPARING)]
    reporter.report("t1", RUNNING)
    await clock.advance(0.06)
    assert await reporter.next_batch() == [("t1", RUNNING)]
    assert caplog.text.count("cannot save task statuses") == 1
