"""Withdrawal: that no host leads anybody to a task any more, so that the task may stop.

A task that is to end leaves the bulletins of its networks at once (`reach`); a host leads nobody to it once its agent
has carried that out, which it confirms. Each manager knows this of the nodes whose sessions it holds, and asks the
others. A node that is not in a session may lead somebody there still: it is waited for, but no longer than for anybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from manager.dispatcher.assigner import Assigner
from manager.dispatcher.judgement import is_elsewhere
from manager.dispatcher.reach import answers
from manager.dispatcher.session import AgentSession
from manager.store.view import View
from shoal.channels import Channels
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.node import NodeState
from shoal.rpc import translated
from shoal.v1 import manager_pb2 as wire
from shoal.v1.manager_pb2_grpc import ManagerServiceStub

log = logging.getLogger(__name__)

# A busy host needs a second to change its maps; one that hangs must not keep every task from ending.
WAIT_S = 4.0
LOOK_S = 0.05
_ANSWER_S = 1.0


class Withdrawals:
    """Of the manager on the node `own_id`, which holds `sessions`. `catch_up` brings the assigner up to what the view
    shows."""

    def __init__(
        self,
        view: View,
        assigner: Assigner,
        sessions: Mapping[str, AgentSession],
        channels: Channels,
        *,
        own_id: str,
        catch_up: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._view = view
        self._assigner = assigner
        self._sessions = sessions
        self._channels = channels
        self._own_id = own_id
        self._catch_up = catch_up
        self._clock = clock
        # By network, as of a moment: many tasks that end together look at all nodes once.
        self._heard: dict[str, tuple[float, int]] = {}

    async def everywhere(self, task_id: str) -> bool:
        """Whether no host leads anybody to the task; after 4 s, one may."""
        others = [each.address for id, each in self._view.managers.items() if id != self._own_id]
        return all(await asyncio.gather(self.here(task_id), *(self._ask(other, task_id) for other in others)))

    async def here(self, task_id: str) -> bool:
        """The same of the hosts whose sessions this manager holds."""
        until = self._clock.monotonic() + WAIT_S
        awaited: dict[str, int] | None = None
        while awaited != {}:
            if awaited is None:
                awaited = self._positions(task_id)
            if awaited is not None:
                awaited = {id: position for id, position in awaited.items() if self._heard_by_all(id) < position}
            if awaited != {}:
                if self._clock.monotonic() >= until:
                    return False
                await self._clock.sleep(LOOK_S)
        return True

    def _positions(self, task_id: str) -> dict[str, int] | None:
        """Where the task is gone from the bulletins of its networks; None while this manager has not seen that it is
        to end."""
        self._catch_up()
        task = self._view.tasks.get(task_id)
        if task is None:
            return {}
        if answers(self._view, task):
            return None
        networks = {each.network_id for each in task.status.addresses if each.network_id in self._view.networks}
        return {id: self._assigner.bulletin(id).withdrew_at for id in networks}

    def _heard_by_all(self, network_id: str) -> int:
        """Up to which position of its bulletin every host of a network that is this manager's business has heard."""
        now = self._clock.monotonic()
        at, position = self._heard.get(network_id, (-LOOK_S, 0))
        if now - at >= LOOK_S / 2:
            nodes = [lease.node_id for lease in self._view.leases_of_network(network_id)]
            heard = [self._heard_by(node_id, network_id) for node_id in nodes if self._is_awaited(node_id)]
            position = min(heard, default=self._assigner.bulletin(network_id).position)
            self._heard[network_id] = (now, position)
        return position

    def _heard_by(self, node_id: str, network_id: str) -> int:
        session = self._sessions.get(node_id)
        return -1 if session is None else session.heard(network_id)

    def _is_awaited(self, node_id: str) -> bool:
        node = self._view.nodes.get(node_id)
        return node is not None and node.status.state is not NodeState.DOWN and not is_elsewhere(node, self._own_id)

    async def _ask(self, address: str, task_id: str) -> bool:
        stub = ManagerServiceStub(self._channels.to(address))
        try:
            with translated():
                answer = await stub.AwaitHere(wire.AwaitHereRequest(task_id=task_id), timeout=WAIT_S + _ANSWER_S)
        except ShoalError as error:
            log.info("the manager at %s does not say whether a task is withdrawn: %s", address, error)
            return False
        return bool(answer.withdrawn)
