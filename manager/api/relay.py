"""Relay: a user's call on an engine, passed on to the agent of the node that it names ("shoal-node").

Bytes in, bytes out: no message is known here. One channel per node, as who this manager is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio

from manager.api.find import node_of
from manager.store.view import View
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.node import NodeState
from shoal.names import printable
from shoal.rpc import Metadata, dial
from shoal.settings import AGENT_PORT
from shoal.tls import Identity, node_name

_LONGEST_CALL_S = 30 * 24 * 3600.0


class Relay:
    """`identity` is asked for every call; a channel of an older one is closed."""

    def __init__(self, view: View, own_id: str, identity: Callable[[], Identity]) -> None:
        self._view = view
        self._own_id = own_id
        self._identity = identity
        self._channels: dict[str, tuple[str, Identity, grpc.aio.Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def choose(self, method: str, metadata: Metadata) -> grpc.aio.Channel:
        """The channel to the agent that a call is for. Raises NotFound for a node that is not there, Unavailable
        for one that is down."""
        wanted = _wanted(metadata)
        if not wanted:
            raise InvalidArgument(f"{method} is a node's; say which one", hint="use --node NAME")
        node = node_of(self._view, wanted, own_id=self._own_id)
        hostname = node.description.hostname
        if node.status.state is NodeState.DOWN or not node.description.address:
            raise Unavailable(f"node {hostname} is down: {node.status.message or 'it has no address'}")
        return self._channel(node.meta.id, f"{node.description.address}:{AGENT_PORT}")

    def whom(self, metadata: Metadata) -> str:
        """Who a call is for, in words."""
        return f"node {printable(_wanted(metadata))}"

    def _channel(self, node_id: str, address: str) -> grpc.aio.Channel:
        identity = self._identity()
        if known := self._channels.get(node_id):
            if known[:2] == (address, identity):
                return known[2]
            # Calls under way on the old one go on to their end: somebody may follow a log for days.
            closing = asyncio.ensure_future(known[2].close(grace=_LONGEST_CALL_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        channel = dial(address, identity=identity, server_name=node_name(node_id))
        self._channels[node_id] = (address, identity, channel)
        return channel

    async def close(self) -> None:
        for _, _, channel in self._channels.values():
            await channel.close()


def _wanted(metadata: Metadata) -> str:
    """The node that a call names; empty when it names none."""
    wanted = dict(metadata or ()).get("shoal-node", "")
    return wanted if isinstance(wanted, str) else ""
