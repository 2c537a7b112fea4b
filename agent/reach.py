"""Reach: a manager to hand a call to. The one on this host first, and while it is down, another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from agent.manager import ManagerProcess
from shoal.channels import Channels
from shoal.errors import ShoalError, Unavailable
from shoal.tls import Identity

# How long the manager of this host may take to let itself be connected to before another one is asked.
OWN_S = 0.5
OTHERS_S = 3.0


class Reach:
    """Of a manager's host, which other managers let in as `identity` says."""

    def __init__(self, identity: Callable[[], Identity]) -> None:
        self._channels = Channels(identity, silence_s=4.5)

    async def channel(self, own: ManagerProcess, managers: Sequence[str]) -> grpc.aio.Channel:
        """A channel that is connected. Raises Unavailable with the reason of this host's manager where none is."""
        reason: ShoalError
        try:
            channel = own.channel()
            if await _connected(channel, OWN_S):
                return channel
            reason = Unavailable("the manager of this node does not answer", hint="its agent looks after it")
        except ShoalError as error:
            reason = error
        others = [self._channels.to(address) for address in managers if address != own.address]
        if (found := await _first_connected(others)) is not None:
            return found
        raise reason

    async def close(self) -> None:
        await self._channels.close()


async def _first_connected(channels: Sequence[grpc.aio.Channel]) -> grpc.aio.Channel | None:
    """Whichever is connected first: one that is dead must not hold up the call."""

    async def connect(channel: grpc.aio.Channel) -> grpc.aio.Channel | None:
        return channel if await _connected(channel, OTHERS_S) else None

    trying = [asyncio.ensure_future(connect(channel)) for channel in channels]
    try:
        for each in asyncio.as_completed(trying):
            if (found := await each) is not None:
                return found
        return None
    finally:
        for each in trying:
            each.cancel()
        await asyncio.gather(*trying, return_exceptions=True)


async def _connected(channel: grpc.aio.Channel, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
            return True
    return False
