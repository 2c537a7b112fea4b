"""Inquiry: a host answers though nobody listens there; where there is none, nothing does."""

from __future__ import annotations

import asyncio
import socket

from manager.dispatcher.inquiry import answers


async def test_a_host_lives_whether_it_takes_a_connection_or_refuses_it() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await answers("127.0.0.1", port)
    server.close()
    await server.wait_closed()
    assert await answers("127.0.0.1", port)


async def test_silence_is_no_answer() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        # The kernel drops what comes to a queue that is full (listen(2)).
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        assert not await answers(*address)
        for each in waiting:
            each.close()
