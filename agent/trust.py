"""Trust: whom this node lets in, of those whose certificate is one of the cluster's.

The manager tells it with the session, and at every change. It is kept on the disk: what an agent knew before it was
restarted holds until a manager says otherwise.
"""

from __future__ import annotations

import msgspec

from agent.database import Database
from shoal.access import Call, Gate
from shoal.clock import Clock
from shoal.errors import PermissionDenied
from shoal.model.node import Role
from shoal.model.trust import Trust
from shoal.tls import Peer

MEMBERS_SERVICE = "shoal.v1.BlobService"
SUMMON_SERVICE = "shoal.v1.SummonService"
_SETTING = "trust"


class Doorkeeper:
    """What a node lets others do: blobs are for every member of the cluster, the engine for its managers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._trust = Trust()
        self._revoked: dict[str, int] = {}
        self.gate = Gate(self.check, clock)

    async def restore(self) -> None:
        """What was known before the agent's last end."""
        if kept := await self._database.setting(_SETTING):
            self._take(msgspec.json.decode(kept, type=Trust))

    async def learn(self, trust: Trust) -> None:
        """What a manager says holds from now on."""
        if trust != self._trust:
            self._take(trust)
            await self._database.set(_SETTING, msgspec.json.encode(trust).decode())

    def check(self, call: Call) -> None:
        """Raises PermissionDenied for who was removed, and for who wants what is a manager's."""
        peer = call.peer
        if not isinstance(peer, Peer):
            raise PermissionDenied(f"{call.name} of a node is for nodes of its swarm", hint="ask a manager for it")
        if self._revoked.get(peer.node_id, 0) > self._clock.now_ns():
            raise PermissionDenied(
                f"node {peer.node_id} was removed from the cluster", hint="leave it there and join again with a token"
            )
        if call.service == MEMBERS_SERVICE:
            return
        if call.service == SUMMON_SERVICE and peer.role is Role.MANAGER:
            return  # of a cluster that was restored, no node knows the manager's id
        # A node that joined a moment ago does not know the managers' ids yet; what their certificates say must do.
        known = not self._trust.manager_ids or peer.node_id in self._trust.manager_ids
        if peer.role is not Role.MANAGER or not known:
            raise PermissionDenied(
                f"{call.name} of a node is for managers of its swarm, and node {peer.node_id} is a worker",
                hint="run the command on a manager",
            )

    def _take(self, trust: Trust) -> None:
        self._trust = trust
        self._revoked = {each.meta.id: each.until_ns for each in trust.revocations}
        self.gate.review()
