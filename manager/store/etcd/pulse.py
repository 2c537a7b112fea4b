"""Pulse: asks etcd for nothing in particular every two seconds, so that a member that hangs is left, and whether writes
can be done is known before anybody tries."""

from __future__ import annotations

import contextlib

from manager.store.etcd import method
from manager.store.etcd.client import Client
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.etcd.v3 import wire_pb2 as wire
from shoal.tasks import first_of

PERIOD_S = 2.0


class Pulse:
    """`full` is set by who was told so; the pulse takes it back once etcd has no such alarm any more."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self.full = False

    async def run(self) -> None:
        while True:
            # At once where a stream broke.
            await first_of(self._client.suspicious.wait(), self._clock.sleep(PERIOD_S))
            self._client.suspicious.clear()
            with contextlib.suppress(ShoalError):  # the client remembers it as its trouble
                await self._client.look()
                if self.full:
                    answer = await self._client.ask(method.ALARM, wire.AlarmRequest(), again=True)
                    self.full = any(each.alarm == wire.ALARM_TYPE_NO_SPACE for each in answer.alarms)
