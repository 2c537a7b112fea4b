"""Quorum: the members of the managers' own etcd, kept in step with the nodes that are to be managers. On the leader.

etcd's list of members and the nodes' records say all there is to know, so whoever leads goes on where the one before
broke off: a learner gets its vote once it has caught up, the member of a node that is to be a worker is removed before
that node's manager stops, and what a record says of its member is what etcd says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from manager.control.action import change, commit, touched
from manager.control.roster import peer_url
from manager.store.base import Guard, Store
from manager.store.member import Member, Members
from manager.store.mirror import Mirror
from manager.store.view import View
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.node import ManagerStatus, Node, Role

log = logging.getLogger(__name__)

LOOK_S = 1.0
_PROMOTE_S = 1.0


class Promote(msgspec.Struct, frozen=True):
    """Give a learner its vote."""

    member_id: str


class Remove(msgspec.Struct, frozen=True):
    member_id: str


class Note(msgspec.Struct, frozen=True):
    """Write down what a node is as a manager."""

    node: Node
    manager: ManagerStatus


Move: TypeAlias = Promote | Remove | Note


def moves(view: View, members: Sequence[Member]) -> Iterator[Move]:
    """What is to be done about each member, and each record, now. Pure."""
    nodes = {peer_url(node.manager.address): node for node in view.nodes.values() if node.manager.address}
    for member in members:
        node = nodes.get(member.peer_url)
        if node is None or node.spec.role is Role.WORKER:
            yield Remove(member.id)
        elif member.learner:
            if member.name:
                yield Promote(member.id)
        elif node.manager.member_id != member.id:
            yield Note(node, msgspec.structs.replace(node.manager, member_id=member.id))
    known = {member.id for member in members}
    for node in nodes.values():
        if node.manager.member_id and node.manager.member_id not in known:
            # etcd has let it go. A worker's agent stops the manager when it hears of this.
            left = ManagerStatus() if node.spec.role is Role.WORKER else ManagerStatus(node.manager.address)
            yield Note(node, left)


class Quorum:
    """`run` on the leader, whose `fence` guards what it writes."""

    def __init__(
        self, members: Members, store: Store, mirror: Mirror, *, clock: Clock, fence: tuple[Guard, ...]
    ) -> None:
        self._members = members
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._fence = fence
        self._failing = ""

    async def run(self) -> None:
        """Keep members and records in step, for as long as this manager leads. Raises LeadershipLost."""
        while True:
            try:
                for move in tuple(moves(self._mirror, await self._members.list())):
                    await self._make(move)
            except ShoalError as error:
                self._tell(str(error))
            await self._clock.sleep(LOOK_S)

    async def _make(self, move: Move) -> None:
        match move:
            case Promote(member_id):
                await self._members.promote(member_id, within_s=_PROMOTE_S)
                log.info("member %s of etcd has its vote", member_id)
            case Remove(member_id):
                await self._members.remove(member_id)
                log.info("member %s of etcd is removed", member_id)
            case Note(node, manager):
                wanted = touched(node, self._clock.now_ns(), manager=manager)
                done = await commit(self._store, [change(wanted, "its member of etcd")], self._fence)
                await self._mirror.reached(done.revision)
        self._failing = ""

    def _tell(self, reason: str) -> None:
        """One line per episode."""
        if reason != self._failing:
            log.warning("members of etcd cannot be what they should be, trying on: %s", reason)
        self._failing = reason
