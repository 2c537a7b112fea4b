"""A manager without a network: store, mirror and clock as the daemon wires them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manager.api.control import ControlService
from manager.api.room import Room
from manager.audit.ledger import Ledger
from manager.ca.authority import Authority, Seal
from manager.ca.lock import Lock
from manager.ca.login import opened
from manager.ca.signer import Signer
from manager.ca.token import sealed_secret
from manager.control.action import commit, create
from manager.control.tenure import Tenure
from manager.dispatcher.errand import Errands
from manager.dispatcher.holders import Holders
from manager.dispatcher.inventory import Inventory
from manager.dispatcher.location import Location
from manager.doctor.examine import Doctor
from manager.store.mirror import Mirror
from manager.store.records import Noun
from manager.store.sqlite.store import SqliteStore
from shoal import defaults
from shoal.channels import Channels
from shoal.clock import SystemClock
from shoal.errors import Unavailable
from shoal.model.base import Meta, Resources
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role

NOW = 1_700_000_000_000_000_000


class Parts(msgspec.Struct):
    store: SqliteStore
    mirror: Mirror
    clock: SystemClock
    seal: Seal
    authority: Authority
    inventory: Inventory
    holders: Holders
    errands: Errands
    location: Location
    channels: Channels
    tenure: Tenure
    room: Room
    control: ControlService

    async def add(self, *values: Noun) -> None:
        done = await commit(self.store, [create(value, "test") for value in values])
        assert not done.conflicts
        await self.mirror.reached(done.revision)


def node(id: str, role: Role = Role.WORKER, state: NodeState = NodeState.READY, address: str = "10.9.0.1") -> Node:
    return Node(
        Meta(id, created_at_ns=NOW),
        NodeSpec(role, Availability.ACTIVE),
        NodeDescription(hostname=f"host-{id}", resources=Resources(4_000_000_000, 1 << 30), address=address),
        NodeStatus(state, "", NOW),
    )


async def nobody_answers(node_id: str) -> Any:
    """There is no network here."""
    raise Unavailable(f"node {node_id} does not answer")


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Parts]:
    """One manager "m1" and one worker "w1" in a cluster "c1". No loop runs."""
    clock = SystemClock()
    store = await SqliteStore.open(tmp_path / "store.db", clock=clock)
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    await mirror.reached(0)
    seal, authority, inventory = Seal(b"k" * 32), Authority.create("c1", clock.now_ns()), Inventory()
    tenure = Tenure(store, node_id="m1", address="10.9.0.9:2377", clock=clock)
    serving = asyncio.create_task(tenure.run())
    own = authority.new_identity(
        node_id="m1", cluster_id="c1", role=Role.MANAGER, life_ns=10**14, now_ns=clock.now_ns()
    )
    channels = Channels(lambda: own)
    holders, errands = Holders(inventory, mirror, channels, own_id="m1"), Errands(clock)
    location = Location(mirror, holders, errands, open_login=partial(opened, seal))
    lock = Lock(tmp_path / "seal.key")
    doctor = Doctor(
        store, mirror, channel_to=nobody_answers, leader=lambda: "m1", file=tmp_path / "store.db", clock=clock
    )
    room = Room(
        store,
        mirror,
        clock,
        seal,
        Signer(mirror, seal).current,
        Ledger(store, seal, clock),
        holders,
        "m1",
        lambda: "m1",
        lock,
        doctor,
    )
    control = ControlService(room)
    parts = Parts(
        store, mirror, clock, seal, authority, inventory, holders, errands, location, channels, tenure, room, control
    )
    cluster = Cluster(
        Meta("c1", created_at_ns=NOW),
        defaults.CLUSTER,
        authority.root_ca_pem,
        seal.seal(authority.key_pem, "CA key"),
        sealed_secret(seal, Role.WORKER),
        sealed_secret(seal, Role.MANAGER),
    )
    await parts.add(cluster, node("m1", Role.MANAGER, address="10.9.0.9"), node("w1"))
    await tenure.begun()
    await mirror.reached((await store.read("/")).revision)
    yield parts
    await channels.close()
    serving.cancel()
    following.cancel()
    await store.close()
