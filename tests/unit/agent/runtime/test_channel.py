"""The agent's end of one process's connection, against a socket that says what a keeper says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from agent.runtime import wire
from agent.runtime.channel import AHEAD_BYTES, Channel

Pair = tuple[Channel, socket.socket]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, channel = await asyncio.get_running_loop().create_connection(Channel, sock=ours)
    yield channel, theirs
    channel.close()
    theirs.close()


async def test_a_frame_longer_than_what_is_held_ahead_arrives_whole(pair: Pair) -> None:
    channel, theirs = pair
    long = b"x" * (4 * AHEAD_BYTES)
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(theirs, wire.frame(wire.STDOUT, long)))
    assert await channel.receive() == [(wire.STDOUT, long)]
    await sending


async def test_what_nobody_takes_is_left_to_the_sender_and_nothing_is_lost(pair: Pair) -> None:
    channel, theirs = pair
    loop, frame, count = asyncio.get_running_loop(), wire.frame(wire.STDOUT, b"y" * AHEAD_BYTES), 64
    sending = asyncio.ensure_future(loop.sock_sendall(theirs, frame * count))
    taken = await channel.receive()
    assert not sending.done()
    while len(taken) < count:
        taken += await channel.receive()
    await sending
    assert taken == [(wire.STDOUT, b"y" * AHEAD_BYTES)] * count


@pytest.mark.parametrize("last", [b"", (wire.MAX_PAYLOAD + 1).to_bytes(4, "little") + b"\1"])
async def test_after_a_hang_up_or_nonsense_there_are_no_frames_and_nobody_takes_any(pair: Pair, last: bytes) -> None:
    channel, theirs = pair
    theirs.send(wire.frame(wire.STDERR, b"z") + last)
    if not last:
        theirs.close()
    assert await channel.receive() == [(wire.STDERR, b"z")]
    assert await channel.receive() == []
    await channel.send(wire.frame(wire.STDIN, b"late"))
