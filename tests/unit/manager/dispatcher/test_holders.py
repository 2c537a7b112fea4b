"""Who holds an image, asked of all managers over real mutual TLS; one that does not answer is done without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from manager.api.enlisting import Enlisting
from manager.api.peer import PeerService
from manager.control.action import commit, create
from manager.dispatcher import holders
from manager.dispatcher.assigner import Assigner
from manager.dispatcher.inventory import Held, Inventory
from manager.dispatcher.withdrawal import Withdrawals
from manager.store.presence import Presence
from shoal.errors import Unavailable
from shoal.model.access import StoreAccess
from shoal.model.base import Meta
from shoal.model.node import NodeState, Role
from shoal.rpc import new_server
from shoal.tls import server_credentials
from shoal.v1 import manager_pb2_grpc
from tests.unit.manager.conftest import node

WEB = "docker.io/library/web:1"


class Silent(PeerService):
    async def FindImage(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()


def enlisting(manager: Any) -> Enlisting:
    return Enlisting(manager.store, manager.mirror, manager.clock, manager.seal, StoreAccess(), None)


def withdrawals(manager: Any) -> Withdrawals:
    mirror, channels, clock = manager.mirror, manager.channels, manager.clock
    return Withdrawals(mirror, Assigner(mirror), {}, channels, own_id="m2", catch_up=lambda: None, clock=clock)


async def other(manager: Any, node_id: str, service: PeerService) -> grpc.aio.Server:
    """Another manager of the cluster, serving no more than what managers ask each other."""
    own = manager.authority.new_identity(
        node_id=node_id, cluster_id="c1", role=Role.MANAGER, life_ns=10**14, now_ns=manager.clock.now_ns()
    )
    server = new_server()
    manager_pb2_grpc.add_ManagerServiceServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    done = await commit(manager.store, [create(Presence(Meta(node_id), f"127.0.0.1:{port}"), "test")])
    await manager.mirror.reached(done.revision)
    return server


@pytest.fixture
async def second(manager: Any) -> AsyncIterator[Inventory]:
    """The inventory of a second manager, "m2"."""
    inventory = Inventory()
    server = await other(
        manager, "m2", PeerService(inventory, manager.errands, withdrawals(manager), enlisting(manager))
    )
    yield inventory
    await server.stop(None)


async def test_nodes_of_all_managers_are_known(manager: Any, second: Inventory) -> None:
    manager.inventory.put("w1", [Held(WEB, "sha256:1")])
    second.put("w2", [Held(WEB, "sha256:2")])
    second.put("w3", [Held(WEB, "sha256:2")])
    assert await manager.holders.locate(WEB, "") == [("w1", "sha256:1"), ("w2", "sha256:2"), ("w3", "sha256:2")]
    assert await manager.holders.locate("", "sha256:2") == [("w2", "sha256:2"), ("w3", "sha256:2")]


async def test_a_tag_means_what_most_nodes_hold_but_first_what_this_one_does(manager: Any, second: Inventory) -> None:
    manager.inventory.put("w1", [Held(WEB, "sha256:1")])
    second.put("w2", [Held(WEB, "sha256:2")])
    second.put("w3", [Held(WEB, "sha256:2")])
    assert await manager.holders.digest_of(WEB) == "sha256:2"
    second.put("m1", [Held(WEB, "sha256:1")])
    assert await manager.holders.digest_of(WEB) == "sha256:1"
    assert await manager.holders.digest_of("docker.io/library/none:1") == ""


async def test_nobody_can_say_who_holds_an_image_while_a_node_has_not_come_back(
    manager: Any, second: Inventory
) -> None:
    manager.inventory.put("m1", [])
    with pytest.raises(Unavailable, match="1 of 2 nodes have not said whether they have it"):
        await manager.holders.locate_surely(WEB, "")
    second.put("w1", [])
    assert (await manager.holders.locate_surely(WEB, "")).holders == []
    second.put("w1", [Held(WEB, "sha256:1")])
    assert (await manager.holders.locate_surely(WEB, "")).holders == [("w1", "sha256:1")]


async def test_a_node_that_is_down_is_waited_for_only_with_an_image_that_the_cluster_had(manager: Any) -> None:
    await manager.add(node("w2", state=NodeState.DOWN))
    for id in ("m1", "w1"):
        manager.inventory.put(id, [])
    assert (await manager.holders.locate_surely(WEB, "")).holders == []
    with pytest.raises(Unavailable, match="1 of 3 nodes"):
        await manager.holders.locate_surely(WEB, "sha256:1")


async def test_a_manager_that_is_silent_is_done_without(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "ASK_S", 0.1)
    server = await other(manager, "m3", Silent(Inventory(), manager.errands, withdrawals(manager), enlisting(manager)))
    manager.inventory.put("w1", [Held(WEB, "sha256:1")])
    assert await manager.holders.locate(WEB, "") == [("w1", "sha256:1")]
    await server.stop(None)
