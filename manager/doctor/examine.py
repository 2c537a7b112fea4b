"""Examine: gathers the facts that no record holds: it writes to the store, and asks every node that is up.

Bounded: a few nodes at a time, a few seconds each. What cannot be found out is a finding itself, never an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from manager.doctor.checks import diagnose
from manager.doctor.facts import Facts, Finding, HostFacts, StoreFacts
from manager.store.base import Put, Store, Txn
from manager.store.etcd.store import EtcdStore
from manager.store.member import Members
from manager.store.mirror import Mirror
from shoal import __version__
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.node import NodeState
from shoal.rpc import translated
from shoal.v1 import engine_pb2, engine_pb2_grpc

_AT_ONCE = 32
_ANSWER_S = 3.0
_WRITE_S = 5.0
_KEY = "/doctor"


class Doctor:
    """`channel_to` reaches the agent of a node by its id; `leader` is the node that leads; `file` the store's, where it
    has one."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        *,
        channel_to: Callable[[str], Awaitable[grpc.aio.Channel]],
        leader: Callable[[], str],
        file: Path,
        clock: Clock,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._channel_to = channel_to
        self._leader = leader
        self._file = file
        self._clock = clock

    async def examine(self) -> list[Finding]:
        ready = [node.meta.id for node in self._mirror.nodes.values() if node.status.state is NodeState.READY]
        turns = asyncio.Semaphore(_AT_ONCE)
        store, hosts = await asyncio.gather(
            self._look_at_store(), asyncio.gather(*(self._ask(node_id, turns) for node_id in ready))
        )
        asked = dict(zip(ready, hosts, strict=True))
        # A node that came up meanwhile was not asked.
        for node in self._mirror.nodes.values():
            asked.setdefault(node.meta.id, HostFacts())
        return diagnose(self._mirror, Facts(self._clock.now_ns(), __version__, self._leader(), store, asked))

    async def _look_at_store(self) -> StoreFacts:
        kind = self._store.kind
        if self._store.trouble:
            return StoreFacts(kind, self._store.trouble)  # nobody would answer what else is asked
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(_WRITE_S):
                await self._store.txn(Txn(puts=(Put(_KEY, b""),)))
            took_s = self._clock.monotonic() - began
            await self._store.txn(Txn(deletes=(_KEY,)))
        except (ShoalError, TimeoutError) as error:
            return StoreFacts(kind, str(error) or f"a write took more than {_WRITE_S:.0f} s")
        if isinstance(self._store, EtcdStore):
            return await self._look_at_members(self._store, took_s)
        return StoreFacts(kind, "", took_s, self._file.stat().st_size if self._file.exists() else 0)

    async def _look_at_members(self, store: EtcdStore, took_s: float) -> StoreFacts:
        """What etcd says of itself; what it does not say is left out."""
        asked = Members(store.client, self._clock)
        try:
            members = await asked.list()
            healths = await asked.health(members)
            alarms = await asked.alarms()
        except ShoalError as error:
            return StoreFacts(store.kind, "", took_s, members=(("etcd", error.message),))
        names = {member.id: member.name or member.id for member in members}
        return StoreFacts(
            store.kind,
            "",
            took_s,
            max((health.database_bytes for health in healths), default=0),
            tuple((names[health.member_id], health.trouble) for health in healths),
            tuple(f"{what} at {names.get(member, member)}" for what, member in alarms),
        )

    async def _ask(self, node_id: str, turns: asyncio.Semaphore) -> HostFacts:
        async with turns:
            began = time.monotonic()
            try:
                channel = await self._channel_to(node_id)
                with translated():
                    info = await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(
                        engine_pb2.GetInfoRequest(), timeout=_ANSWER_S
                    )
            except ShoalError as error:
                return HostFacts(error=error.message)
            doubt_s = (time.monotonic() - began) / 2
            ahead_s = (info.now_ns - self._clock.now_ns()) / 1e9 + doubt_s if info.now_ns else 0.0
            return HostFacts(
                ahead_s=ahead_s,
                doubt_s=doubt_s,
                disk_bytes=info.disk_bytes,
                disk_free_bytes=info.disk_free_bytes,
                machine_id=info.machine_id,
            )
