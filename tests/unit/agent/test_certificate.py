"""Renewal: in time, by whoever answers, and live at once."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

from agent.certificate import Credentials, Renewal, due_ns, renew
from shoal.clock import ManualClock, SystemClock
from shoal.tls import BACKDATE, Identity
from tests.unit.agent.conftest import Authority, Manager, eventually

DAY = datetime.timedelta(hours=24)
BEGIN = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)


def test_due_between_half_and_two_thirds_of_life(authority: Authority) -> None:
    identity = authority.identity("node1", not_before=BEGIN, not_after=BEGIN + BACKDATE + DAY)
    issued_ns = int((BEGIN + BACKDATE).timestamp() * 1e9)
    hours = [(due_ns(identity, chance) - issued_ns) / 3600e9 for chance in (0.0, 0.5, 1.0)]
    assert hours == [12.0, 14.0, 16.0]


async def test_a_new_certificate_is_over_a_new_key(authority: Authority, manager: Manager) -> None:
    before = authority.identity("node1")
    after = await renew(before, manager.address)
    assert after.node_id == "node1"
    assert after.key_pem != before.key_pem
    assert after.root_ca_pem == before.root_ca_pem


async def test_renews_in_time_from_the_first_manager_that_answers(
    authority: Authority, manager: Manager, tmp_path: Path
) -> None:
    clock = ManualClock()
    now = datetime.datetime.fromtimestamp(clock.now_ns() / 1e9, datetime.UTC)
    before = authority.identity("node1", not_before=now, not_after=now + datetime.timedelta(days=3650))
    credentials = Credentials(tmp_path, before)
    renewal = Renewal(credentials, lambda: ["127.0.0.1:1", manager.address], clock=clock, chance=lambda: 0.0)
    running = asyncio.create_task(renewal.run())
    await clock.advance(3600)
    assert credentials.current() == before
    # Ten years of minutes are too many to step through: the wall clock jumps as after a long suspension.
    clock._start_ns += 6 * 365 * 86_400_000_000_000
    await clock.advance(61)
    await eventually(lambda: credentials.current() != before)
    assert Identity.load(tmp_path) == credentials.current()
    running.cancel()


async def test_goes_on_trying_while_nobody_answers(authority: Authority, manager: Manager, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    old = authority.identity("node1", not_before=now - DAY, not_after=now + datetime.timedelta(hours=1))
    credentials = Credentials(tmp_path, old)
    managers: list[str] = []
    renewal = Renewal(credentials, lambda: managers, clock=SystemClock(), chance=lambda: 0.0)
    running = asyncio.create_task(renewal.run())
    await asyncio.sleep(0.05)
    assert credentials.current() == old
    managers.append(manager.address)
    await eventually(lambda: credentials.current() != old)
    running.cancel()


async def test_one_that_is_yet_to_begin_is_exchanged_at_once(authority: Authority, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    asked = asyncio.Event()

    def managers() -> list[str]:
        asked.set()
        return []

    credentials = Credentials(tmp_path, authority.identity("node1", not_before=now + DAY, not_after=now + 2 * DAY))
    running = asyncio.create_task(Renewal(credentials, managers, clock=SystemClock(), chance=lambda: 0.0).run())
    async with asyncio.timeout(30):
        await asked.wait()
    running.cancel()


async def test_renews_before_its_time_once_the_cluster_signs_with_another_root(
    authority: Authority, manager: Manager, tmp_path: Path
) -> None:
    clock = ManualClock()
    now = datetime.datetime.fromtimestamp(clock.now_ns() / 1e9, datetime.UTC)
    before = authority.identity("node1", not_before=now, not_after=now + datetime.timedelta(days=3650))
    credentials = Credentials(tmp_path, before)
    renewal = Renewal(credentials, lambda: [manager.address], clock=clock, chance=lambda: 0.5)
    running = asyncio.create_task(renewal.run())
    credentials.expect(before.info.issuer_key, 60.0)
    await clock.advance(60)
    assert credentials.current() == before
    credentials.expect("another", 60.0)
    await clock.advance(29)
    assert credentials.current() == before
    await clock.advance(2)
    await eventually(lambda: credentials.current() != before)
    assert not credentials.outdated.is_set()
    running.cancel()


def test_other_roots_are_trusted_without_another_session(authority: Authority, tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, authority.identity("node1"))
    credentials.trust("")
    assert credentials.current().root_ca_pem == authority.root_pem
    credentials.trust("ROOTS")
    assert Identity.load(tmp_path) == credentials.current()
    assert credentials.current().root_ca_pem == "ROOTS"
    assert not credentials.renewed.is_set()
