"""Summoner: calls nodes that nobody holds a session with, and tells them where the managers are now.

An agent comes by itself to every address that it knows. It knows the wrong ones when its cluster was restored
elsewhere, or when all managers moved while its host was off; its own address stands in its record. The leader calls,
each node after a while in which it did not come, then ever more rarely. A node that is in a session somewhere stays
there: nobody is called away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc.aio
import msgspec

from manager.store.view import View
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.node import Node, NodeState
from shoal.rpc import dial, translated
from shoal.settings import AGENT_PORT
from shoal.tls import Identity, node_name
from shoal.v1 import swarm_pb2, swarm_pb2_grpc

log = logging.getLogger(__name__)

LOOK_S = 1.0
FIRST_S = 2.0
RARELY_S = 300.0
ANSWER_S = 3.0
# Of thousands that come back by themselves after a restart, few are called: a handshake costs 3 ms.
AT_ONCE = 20


class Missed(msgspec.Struct, frozen=True):
    """When a node is called next, in monotonic seconds, and how long is waited after that."""

    at: float
    wait_s: float


def due(nodes: Sequence[Node], missed: dict[str, Missed], now: float) -> tuple[list[Node], dict[str, Missed]]:
    """The nodes to call now, at most AT_ONCE, and what is to be remembered of all that are missed."""
    away = [node for node in nodes if node.status.state is not NodeState.READY and node.description.address]
    kept = {node.meta.id: missed.get(node.meta.id, Missed(now + FIRST_S, 2 * FIRST_S)) for node in away}
    waiting = sorted(away, key=lambda node: kept[node.meta.id].at)
    called = [node for node in waiting[:AT_ONCE] if kept[node.meta.id].at <= now]
    for node in called:
        wait_s = kept[node.meta.id].wait_s
        kept[node.meta.id] = Missed(now + wait_s, min(2 * wait_s, RARELY_S))
    return called, kept


class Summoner:
    """`managers` is where managers listen, `leads` whether this one calls."""

    def __init__(
        self,
        view: View,
        *,
        identity: Callable[[], Identity],
        managers: Callable[[], Sequence[str]],
        leads: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._view = view
        self._identity = identity
        self._managers = managers
        self._leads = leads
        self._clock = clock
        self._missed: dict[str, Missed] = {}

    async def run(self) -> None:
        """Look for nodes that are missed, for as long as the manager lives."""
        while True:
            await self._clock.sleep(LOOK_S)
            if not self._leads():
                self._missed.clear()
                continue
            called, self._missed = due(list(self._view.nodes.values()), self._missed, self._clock.monotonic())
            await asyncio.gather(*map(self._call, called))

    async def _call(self, node: Node) -> None:
        address = f"{node.description.address}:{AGENT_PORT}"
        request = swarm_pb2.SummonRequest(managers=self._managers())
        channel: grpc.aio.Channel
        async with dial(address, identity=self._identity(), server_name=node_name(node.meta.id)) as channel:
            try:
                with translated():
                    await swarm_pb2_grpc.SummonServiceStub(channel).Summon(request, timeout=ANSWER_S)
            except ShoalError as error:
                log.debug("node %s does not hear a summons: %s", node.description.hostname, error)
            else:
                log.info("summoned node=%s hostname=%s", node.meta.id, node.description.hostname)
