"""Channels: one per peer, as who we are now. A renewed identity, or another address, makes a new one; calls under way
on the old one come to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio

from shoal.rpc import dial
from shoal.tls import Identity

# Somebody may follow a log for days.
_LONGEST_CALL_S = 30 * 24 * 3600.0


class Channels:
    """`identity` is asked for every call. A peer that falls silent ends its calls after `silence_s`."""

    def __init__(self, identity: Callable[[], Identity], *, silence_s: float = 15.0) -> None:
        self._identity = identity
        self._silence_s = silence_s
        self._open: dict[str, tuple[str, Identity, grpc.aio.Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def to(self, address: str, *, server_name: str = "") -> grpc.aio.Channel:
        """The channel to who must prove to be `server_name` (a manager, when empty) at "HOST:PORT"."""
        identity = self._identity()
        peer = server_name or address
        if known := self._open.get(peer):
            if known[:2] == (address, identity):
                return known[2]
            closing = asyncio.ensure_future(known[2].close(grace=_LONGEST_CALL_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        channel = dial(address, identity=identity, server_name=server_name, silence_s=self._silence_s)
        self._open[peer] = (address, identity, channel)
        return channel

    async def close(self) -> None:
        for _, _, channel in self._open.values():
            await channel.close()
