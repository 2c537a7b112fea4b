"""One call of a session, at its end: why it ended is told by the reader, and by nobody else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.stream import Stream
from shoal.clock import SystemClock
from shoal.errors import Conflict
from shoal.rpc import new_server
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import dispatcher_pb2_grpc
from tests.unit.agent.conftest import Authority

ROUNDS = 3


class Manager(dispatcher_pb2_grpc.DispatcherServiceServicer):
    """Welcomes, hears one word, and ends the call."""

    async def Session(self, requests: Any, _context: Any) -> Any:
        await anext(requests)
        yield wire.SessionResponse(welcome=wire.Welcome(session_id="s"))
        await anext(requests)
        raise Conflict("another session of this node has begun")


@pytest.mark.parametrize("number", range(ROUNDS))
async def test_a_manager_that_ends_the_call_while_something_is_said(tmp_path: Path, number: int) -> None:
    server, target = new_server(), f"unix:{tmp_path}/manager"
    dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(Manager(), server)
    server.add_insecure_port(target)
    await server.start()
    stream = Stream(target, Authority().identity("n1"), wire.Hello(), silence_s=5, connect_s=5)
    await stream.open(SystemClock(), unless=asyncio.Event().wait())
    chatting, writing = asyncio.create_task(chat(stream)), asyncio.create_task(stream.write())
    try:
        with pytest.raises(Conflict, match="another session"):
            async for _ in stream.responses():
                pass
        await asyncio.sleep(0)
        assert not writing.done()
    finally:
        chatting.cancel()
        writing.cancel()
        await asyncio.gather(chatting, writing, return_exceptions=True)
        await stream.close()
        await server.stop(None)


async def chat(stream: Stream) -> None:
    while True:
        await stream.say(heartbeat=wire.Heartbeat())
