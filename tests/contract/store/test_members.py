"""Members of a real etcd: they come as learners, get their vote, lead, and go."""

import asyncio

import pytest

from manager.store.etcd.compaction import Compactor
from manager.store.member import Members
from shoal.errors import Compacted, Conflict, Exhausted
from tests import etcd
from tests.contract.store.steps import put, take
from tests.contract.store.witness import CLOCK, at_last, opened, told


@pytest.fixture
def newcomer(tmp_path):
    member = etcd.Member("new", tmp_path)
    yield member
    member.kill()


async def test_a_member_comes_as_a_learner_and_gets_its_vote(member, newcomer):
    async with opened(member.client) as store:
        members = Members(store.client, CLOCK)
        await store.txn(put("/a"))
        added = await members.add_learner(newcomer.peer_url)
        assert (added.learner, added.name) == (True, "")
        assert await members.add_learner(newcomer.peer_url) == added
        await store.txn(put("/b"))  # a learner that is not there endangers nothing
        newcomer.start([member, newcomer], existing=True)
        await members.promote(added.id, within_s=30)
        await members.promote(added.id, within_s=30)  # again is fine
        await asyncio.to_thread(newcomer.ready)
        listed = await members.list()
        assert [(each.name, each.learner) for each in listed] == [("m1", False), ("new", False)]
        async with opened(newcomer.client) as other:
            assert [record.key for record in (await other.read("/")).records] == ["/a", "/b"]


async def test_a_learner_that_never_starts_is_not_promoted(member, newcomer):
    async with opened(member.client) as store:
        members = Members(store.client, CLOCK)
        added = await members.add_learner(newcomer.peer_url)
        with pytest.raises(Exception, match="did not catch up within 1 s"):
            await members.promote(added.id, within_s=1)
        assert [each.trouble for each in await members.health([added])] == ["it has never started"]
        await members.remove(added.id)
        assert len(await members.list()) == 1


async def test_the_leader_goes_and_another_leads(members):
    async with opened(*(member.client for member in members)) as store:
        ours = Members(store.client, CLOCK)
        before = await ours.list()
        health = await ours.health(before)
        assert [each.trouble for each in health] == ["", "", ""]
        leader = health[0].leader_id
        heir = next(member.id for member in before if member.id != leader)
        await ours.move_leader(heir)
        assert {each.leader_id for each in await ours.health(before)} == {heir}
        await ours.remove(heir)
        await ours.remove(heir)  # again is fine
        after = await ours.list()
        assert {member.id for member in after} == {member.id for member in before} - {heir}
        await at_last(store, "/after")


async def test_what_would_lose_quorum_is_refused_with_the_reason(members):
    async with opened(*(member.client for member in members)) as store:
        ours = Members(store.client, CLOCK)
        await asyncio.to_thread(members[2].kill)
        await at_last(store, "/a")
        listed = await ours.list()
        with pytest.raises(
            Conflict, match=r"without m1 only 1 of 2 members would be well.*bring the other members back"
        ):
            await ours.remove(listed[0].id)
        assert len(await ours.list()) == 3
        await ours.remove(listed[2].id)
        assert len(await ours.list()) == 2


async def test_whoever_leads_keeps_only_the_last_revisions(member):
    async with opened(member.client) as store:
        start = await store.revision()
        compacting = asyncio.create_task(Compactor(store, clock=CLOCK, kept_revisions=20, period_s=0.1).run())
        for _ in range(40):
            last = await store.txn(put("/a"))
        async with asyncio.timeout(60):
            while True:
                try:
                    await take(store.watch("/", after=start), 1)
                except Compacted:
                    break
        assert len(await take(store.watch("/", after=last - 20), 20)) == 20
        compacting.cancel()


async def test_a_full_database_is_told_and_finds_room_again(tmp_path):
    with etcd.running(tmp_path, options=["--quota-backend-bytes", str(2 << 20)]) as (member,):
        async with opened(member.client) as store:
            with pytest.raises(Exhausted, match=r"reached its quota; compact and defragment"):
                for number in range(100):
                    await store.txn(put("/same", bytes([number]) * 100_000))
            assert "quota" in store.trouble
            assert len((await store.read("/")).records) == 1
            compacting = asyncio.create_task(Compactor(store, clock=CLOCK).run())
            await told(store, trouble=False)
            await store.txn(put("/same"))
            compacting.cancel()
