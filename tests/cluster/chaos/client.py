"""The client: creates, updates and removes services all the time, and keeps the ledger of what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.rpc import dial, translated
from shoal.v1 import control_pb2 as wire
from shoal.v1.control_pb2_grpc import ControlServiceStub
from shoal.v1.types_pb2 import (
    ENDPOINT_MODE_VIP,
    SERVICE_MODE_REPLICATED,
    ContainerSpec,
    ServiceSpec,
    TaskSpec,
)
from tests.cluster.chaos.ledger import Ledger, Wish
from tests.cluster.chaos.rack import Rack

if TYPE_CHECKING:
    from shoal.v1.control_pb2_grpc import ControlServiceAsyncStub

CALL_S = 8.0
_NAMES = ("one", "two", "three", "four")
_PAUSE_S = 0.4


class Client:
    """It writes while `run` runs and it is not `held`."""

    def __init__(self, rack: Rack, chance: random.Random) -> None:
        self._rack = rack
        self._chance = chance
        self._revision = 0
        self._writing = asyncio.Lock()
        self.ledger = Ledger()
        # What the manager said that cannot be, given what it acknowledged before.
        self.contradictions: list[str] = []

    @property
    def held(self) -> asyncio.Lock:
        """Whoever has it knows that no write is under way."""
        return self._writing

    async def run(self) -> None:
        while True:
            async with self._writing:
                name = self._chance.choice(_NAMES)
                if self.ledger.sure(name):
                    await self._write(name)
            await asyncio.sleep(self._chance.random() * 2 * _PAUSE_S)

    async def remove_all(self) -> None:
        """For the end; nothing may fail any more."""
        for manager in self._rack.managers:  # one of them may not yet know what another one has just created
            async with dial(self._rack.socket(manager)) as channel:
                for name in _NAMES:
                    with contextlib.suppress(NotFound), translated():
                        await ControlServiceStub(channel).RemoveService(wire.RemoveServiceRequest(service=name))
        for name in _NAMES:
            self.ledger.acknowledge(name, None)

    async def _write(self, name: str) -> None:
        (known,) = self.ledger.of(name)
        self._revision += 1
        wish = Wish(self._revision, self._chance.randint(1, 3))
        if known is not None and self._chance.random() < 0.4:
            await self._call(name, None)
        else:
            await self._call(name, wish)

    async def _call(self, name: str, wish: Wish | None) -> None:
        asked = False
        try:
            async with dial(self._rack.socket(self._chance.choice(self._rack.managers))) as channel:
                control: ControlServiceAsyncStub = ControlServiceStub(channel)
                with translated():
                    version = await self._version(control, name)
                    asked = True
                    await self._ask(control, name, wish, version)
            self.ledger.acknowledge(name, wish)
        except (Conflict, NotFound, InvalidArgument) as error:
            if len(self._rack.managers) == 1:  # of several, one may be behind for a moment
                self.contradictions.append(f"{name}, which is {self.ledger.of(name)}, cannot become {wish}: {error}")
        except (ShoalError, OSError):
            if asked:
                self.ledger.doubt(name, wish)

    async def _version(self, control: ControlServiceAsyncStub, name: str) -> int:
        """What an update of the service must be made on; 0 when there is none."""
        if self.ledger.of(name) == {None}:
            return 0
        answer = await control.GetService(wire.GetServiceRequest(service=name), timeout=CALL_S)
        return answer.service.service.meta.version

    async def _ask(self, control: ControlServiceAsyncStub, name: str, wish: Wish | None, version: int) -> None:
        if wish is None:
            await control.RemoveService(wire.RemoveServiceRequest(service=name), timeout=CALL_S)
        elif version == 0:
            await control.CreateService(wire.CreateServiceRequest(spec=spec_of(name, wish)), timeout=CALL_S)
        else:
            request = wire.UpdateServiceRequest(service=name, version=version, spec=spec_of(name, wish))
            await control.UpdateService(request, timeout=CALL_S)


def spec_of(name: str, wish: Wish) -> ServiceSpec:
    # The environment changes with every second revision: half of the updates replace the tasks.
    container = ContainerSpec(
        image="web:1", args=["sleep", "100000"], env=[f"REVISION={wish.revision // 2}"], stop_signal="SIGKILL"
    )
    return ServiceSpec(
        name=name,
        labels={"revision": str(wish.revision)},
        mode=SERVICE_MODE_REPLICATED,
        replicas=wish.replicas,
        task=TaskSpec(container=container),
        endpoint_mode=ENDPOINT_MODE_VIP,
    )
