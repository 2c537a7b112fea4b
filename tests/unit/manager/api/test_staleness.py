"""What the API does while its store is away: it answers what it knows, says how old that is, and writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from manager.api.staleness import Staleness
from shoal.errors import Unavailable
from shoal.rpc import STALE, dial, listen_locally, new_server, translated
from shoal.v1 import control_pb2 as wire
from shoal.v1 import control_pb2_grpc


class Store:
    trouble = ""
    silent_s = 7.0


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def stub(manager: Any, store: Any, tmp_path: Path) -> AsyncIterator[Any]:
    server: grpc.aio.Server = new_server(interceptors=(Staleness(store),))
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, server)
    listen_locally(server, tmp_path / "manager.sock")
    await server.start()
    async with dial(f"unix:{tmp_path}/manager.sock") as channel:
        yield control_pb2_grpc.ControlServiceStub(channel)
    await server.stop(None)


async def read(stub: Any) -> dict[str, Any]:
    """The trailing metadata of an answer."""
    call = stub.ListNodes(wire.ListNodesRequest())
    assert len((await call).nodes) == 2
    return dict(await call.trailing_metadata() or ())


async def write(stub: Any) -> None:
    with translated():
        await stub.RemoveNode(wire.RemoveNodeRequest(node="w1", force=True))


async def test_a_read_says_how_old_it_may_be(stub: Any, store: Store) -> None:
    assert STALE not in await read(stub)
    store.trouble = "etcd does not answer"
    assert (await read(stub))[STALE] == "7"


async def test_a_write_is_refused_with_the_reason_and_done_later(stub: Any, store: Store) -> None:
    store.trouble = "etcd does not answer"
    with pytest.raises(Unavailable, match="etcd does not answer; what runs goes on"):
        await write(stub)
    store.trouble = ""
    await write(stub)


async def test_the_doctor_is_heard_just_then(stub: Any, store: Store) -> None:
    store.trouble = "etcd does not answer"
    answer = await stub.ExamineCluster(wire.ExamineClusterRequest())
    assert "managers" in [each.check for each in answer.findings]
