"""Members of etcd: who they are, how they are, and how one comes and goes. `why_not_remove` decides without I/O.

A member comes as a learner, which has no vote and so endangers nothing, and is promoted once it has caught up. Each
step may be repeated: a member that is there is not added again, one that is gone is not missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import msgspec

from manager.store.etcd import method
from manager.store.etcd.client import Client
from manager.store.etcd.fault import UNFINISHED, UNHEALTHY
from manager.store.etcd.method import A, Method, Q
from shoal.clock import Clock
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError, Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

_ASK_S = 2.0
# etcd refuses changes for 5 s after a member came or came back.
_CHANGE_S = 10.0
_RETRY_S = 0.2
# Rewriting a database of several GiB takes its time, in which that member answers nobody.
_DEFRAGMENT_S = 120.0


class Member(msgspec.Struct, frozen=True):
    """`id` is hexadecimal, as etcd's own tools print it. `name` and `clients` ("HOST:PORT") are empty before its first
    start."""

    id: str
    name: str
    peer_url: str
    clients: tuple[str, ...]
    learner: bool


class Health(msgspec.Struct, frozen=True):
    """How a member is by its own word; `trouble` says why it is not well, empty when it is."""

    member_id: str
    trouble: str = ""
    leader_id: str = ""
    version: str = ""
    raft_index: int = 0
    database_bytes: int = 0
    in_use_bytes: int = 0


def why_not_remove(members: Sequence[Member], leaving: str, *, healthy: Collection[str]) -> str:
    """Why `leaving` must not be removed while only `healthy` (both ids) are well: most voters would not be. Empty when
    it may."""
    voters = [member for member in members if not member.learner]
    gone = next((member for member in voters if member.id == leaving), None)
    if gone is None:
        return ""  # no member, or without a vote
    left = [member for member in voters if member.id != leaving]
    if not left:
        return f"{gone.name or gone.id} is the only member that votes: without it there is no store"
    now_well, now_needed = sum(member.id in healthy for member in voters), _quorum(len(voters))
    if now_well < now_needed:
        return f"only {now_well} of {len(voters)} members are well, and it takes {now_needed} to remove one"
    well, needed = sum(member.id in healthy for member in left), _quorum(len(left))
    if well < needed:
        return (
            f"without {gone.name or gone.id} only {well} of {len(left)} members would be well, "
            f"and it takes {needed} to write anything"
        )
    return ""


class Members:
    """Over the client of a store (`EtcdStore.client`). Raises Unavailable like it; what changes the membership and
    raised that may have happened, and can be repeated."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def list(self) -> tuple[Member, ...]:
        """By name."""
        request = wire.MemberListRequest(linearizable=True)
        answer = await self._client.ask(method.MEMBER_LIST, request, again=True)
        return _members(answer.members)

    async def add_learner(self, peer_url: str) -> Member:
        """A member without a vote, that will be reached at `peer_url`; the one that is there, where there is one.

        Raises Conflict while another one is a learner still.
        """
        known = await self._at(peer_url)
        if known is not None:
            return known
        request = wire.MemberAddRequest(peer_urls=[peer_url], is_learner=True)
        answer = await self._change(method.MEMBER_ADD, request, again=False)
        return _member(answer.member)

    async def promote(self, member_id: str, *, within_s: float) -> None:
        """Give a learner its vote as soon as it has caught up. Raises Conflict when that takes longer."""
        request = wire.MemberPromoteRequest(id=int(member_id, 16))
        try:
            await self._change(method.MEMBER_PROMOTE, request, again=True, within_s=within_s)
        except Conflict as refusal:
            if UNFINISHED in refusal.message:
                raise Conflict(
                    f"member {member_id} of etcd did not catch up within {within_s:g} s",
                    hint="see that its etcd runs and reaches the others, and try again",
                ) from refusal
            if not any(member.id == member_id and not member.learner for member in await self.list()):
                raise

    async def remove(self, member_id: str) -> None:
        """Leadership goes elsewhere first, if it is there. Raises Conflict where `why_not_remove` says so."""
        members = await self.list()
        health = await self.health(members)
        healthy = {each.member_id for each in health if not each.trouble}
        if why := why_not_remove(members, member_id, healthy=healthy):
            raise Conflict(f"member {member_id} of etcd stays: {why}", hint="bring the other members back first")
        heirs = [member for member in members if member.id in healthy - {member_id} and not member.learner]
        if heirs and any(each.leader_id == member_id for each in health):
            await self._move_leader(members, member_id, heirs[0].id)
        try:
            await self._change(method.MEMBER_REMOVE, wire.MemberRemoveRequest(id=int(member_id, 16)), again=True)
        except NotFound:
            return

    async def move_leader(self, to: str) -> None:
        """Let member `to` lead. Raises Unavailable while nobody leads."""
        members = await self.list()
        leaders = {each.leader_id for each in await self.health(members) if not each.trouble}
        if to in leaders:
            return
        if not leaders:
            raise Unavailable("no member of etcd leads", hint="try again in a moment")
        await self._move_leader(members, leaders.pop(), to)

    async def health(self, members: Sequence[Member]) -> tuple[Health, ...]:
        """Each one's, asked at once; within 2 s."""
        return tuple(await asyncio.gather(*(self._health(member) for member in members)))

    async def alarms(self) -> tuple[tuple[str, str], ...]:
        """What etcd raises an alarm about, and at which member: "no space" or "corrupt"."""
        answer = await self._client.ask(method.ALARM, wire.AlarmRequest(), again=True)
        return tuple((_ALARMS.get(each.alarm, str(each.alarm)), f"{each.member_id:x}") for each in answer.alarms)

    async def disarm(self) -> None:
        """Take back every alarm of a full database; etcd raises it again at the next write that does not fit."""
        answer = await self._client.ask(method.ALARM, wire.AlarmRequest(), again=True)
        for each in answer.alarms:
            if each.alarm == wire.ALARM_TYPE_NO_SPACE:
                request = wire.AlarmRequest(
                    action=wire.AlarmRequest.ACTION_DEACTIVATE, member_id=each.member_id, alarm=each.alarm
                )
                await self._client.ask(method.ALARM, request, again=True)

    async def defragment(self) -> None:
        """Give back the room of what was compacted, one member after the other: each is away meanwhile."""
        for member in await self.list():
            if member.clients:
                await self._client.ask_at(
                    member.clients[0], method.DEFRAGMENT, wire.DefragmentRequest(), timeout_s=_DEFRAGMENT_S
                )

    async def _health(self, member: Member) -> Health:
        if not member.clients:
            return Health(member.id, "it has never started")
        try:
            status = await self._client.ask_at(member.clients[0], method.STATUS, wire.StatusRequest(), timeout_s=_ASK_S)
        except ShoalError as error:
            return Health(member.id, error.message)
        return Health(
            member.id,
            "; ".join(status.errors) if status.leader else "it knows of no leader",
            f"{status.leader:x}" if status.leader else "",
            status.version,
            status.raft_index,
            status.db_size,
            status.db_size_in_use,
        )

    async def _move_leader(self, members: Sequence[Member], leader: str, to: str) -> None:
        """Only the leader itself takes this."""
        address = next((member.clients[0] for member in members if member.id == leader and member.clients), "")
        if not address:
            raise InvalidArgument(f"{leader} is no member of etcd that serves")
        await self._client.ask_at(address, method.MOVE_LEADER, wire.MoveLeaderRequest(target_id=int(to, 16)))

    async def _change(self, what: Method[Q, A], request: Q, *, again: bool, within_s: float = _CHANGE_S) -> A:
        """Ask until etcd does not say "not yet" any more."""
        deadline = self._clock.monotonic() + within_s
        while True:
            try:
                return await self._client.ask(what, request, again=again)
            except (Conflict, Unavailable) as refusal:
                if not any(text in refusal.message for text in _NOT_YET) or self._clock.monotonic() > deadline:
                    raise
            await self._clock.sleep(_RETRY_S)

    async def _at(self, peer_url: str) -> Member | None:
        return next((member for member in await self.list() if member.peer_url == peer_url), None)


_NOT_YET = (UNHEALTHY, UNFINISHED)
_ALARMS = {wire.ALARM_TYPE_NO_SPACE: "no space", wire.ALARM_TYPE_CORRUPT: "corrupt"}


def _quorum(voters: int) -> int:
    return voters // 2 + 1


def _members(found: Collection[wire.Member]) -> tuple[Member, ...]:
    return tuple(sorted((_member(each) for each in found), key=lambda member: (member.name, member.id)))


def _member(found: wire.Member) -> Member:
    clients = tuple(url.split("://", 1)[-1] for url in found.client_urls)
    return Member(f"{found.id:x}", found.name, next(iter(found.peer_urls), ""), clients, found.is_learner)
