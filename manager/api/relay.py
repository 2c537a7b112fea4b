"""Relay: a user's call on an engine, passed on to the agent of the node that it names ("shoal-node").

Bytes in, bytes out: no message is known here.
"""

from __future__ import annotations

import grpc.aio

from manager.api.find import node_of
from manager.store.view import View
from shoal.channels import Channels
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.node import NodeState
from shoal.names import printable
from shoal.rpc import Metadata
from shoal.settings import AGENT_PORT
from shoal.tls import node_name


class Relay:
    def __init__(self, view: View, own_id: str, channels: Channels) -> None:
        self._view = view
        self._own_id = own_id
        self._channels = channels

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
        address = f"{node.description.address}:{AGENT_PORT}"
        return self._channels.to(address, server_name=node_name(node.meta.id))

    def whom(self, metadata: Metadata) -> str:
        """Who a call is for, in words."""
        return f"node {printable(_wanted(metadata))}"


def _wanted(metadata: Metadata) -> str:
    """The node that a call names; empty when it names none."""
    wanted = dict(metadata or ()).get("shoal-node", "")
    return wanted if isinstance(wanted, str) else ""
