"""Inquiry: whether hosts live whose agents ended without a word.

A host that takes a connection on the agent's port, or refuses it, has a kernel that runs: its agent was killed and is
being started again, and its containers go on. One that says nothing may be dead, and is judged as before. Nothing but
the handshake of TCP is asked for. `judgement` says what follows, and for how long.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from manager.dispatcher.liveness import Liveness
from shoal.clock import Clock
from shoal.model.node import Node
from shoal.settings import AGENT_PORT

LOOK_S = 0.5
ANSWER_S = 1.0
# Of thousands whose agents end at once, few are asked for: whoever comes back meanwhile needs no answer.
AT_ONCE = 100


class Inquiry:
    """Tells `liveness` of the hosts that answer on `port`."""

    def __init__(self, liveness: Liveness, clock: Clock, *, port: int = AGENT_PORT) -> None:
        self._liveness = liveness
        self._clock = clock
        self._port = port

    async def run(self) -> None:
        """Ask, for as long as the manager lives."""
        while True:
            await self._clock.sleep(LOOK_S)
            await self.ask()

    async def ask(self) -> None:
        """Ask every host that is to be asked, once."""
        known = (node for node in self._liveness.left_alone() if node.description.address)
        await asyncio.gather(*map(self._ask, islice(known, AT_ONCE)))

    async def _ask(self, node: Node) -> None:
        if await answers(node.description.address, self._port):
            self._liveness.answered(node.meta.id)


async def answers(address: str, port: int) -> bool:
    """Whether there is a host at `address`: it says yes or no to a connection (tcp(7)) within ANSWER_S."""
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
