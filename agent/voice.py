"""Voice: what this node says in a session by itself: who it is, heartbeats at the manager's period, statuses
(`agent/reporter.py`), the images that are held here. `agent/session.py` has it speak over one stream at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from agent.reporter import Reporter
from agent.stream import Stream
from shoal.broadcast import Broadcast, Lagged
from shoal.clock import Clock
from shoal.codec import to_wire
from shoal.model.node import NodeDescription
from shoal.model.task import TaskStatus
from shoal.tasks import first_of
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2

DESCRIBE_EVERY_S = 20.0
DEFAULT_HEARTBEAT_S = 2.0
# More changes of the held images within this time make one message.
IMAGES_S = 0.2


class ImageRoom(Protocol):
    """What a session needs of `agent.image.images.Images`."""

    changes: Broadcast[None]

    def held(self) -> Sequence[tuple[str, str]]: ...


class Voice:
    """`describe` says what this host is at the moment."""

    def __init__(
        self, reporter: Reporter, images: ImageRoom, *, describe: Callable[[], NodeDescription], clock: Clock
    ) -> None:
        self._reporter = reporter
        self._images = images
        self._describe = describe
        self._clock = clock
        self._period_s = DEFAULT_HEARTBEAT_S
        self._repaced = asyncio.Event()

    def hello(self) -> wire.Hello:
        """The first word of a stream."""
        return wire.Hello(description=self._description(), images=self._inventory())

    def beat_every(self, period_s: float) -> None:
        """The manager named a period; 0 is none of its own."""
        if (period_s := period_s or DEFAULT_HEARTBEAT_S) != self._period_s:
            self._period_s = period_s
            self._repaced.set()

    async def speak(self, stream: Stream) -> None:
        """All that comes after `hello`, for as long as this runs."""
        await first_of(
            self._beat(stream), self._send_reports(stream), self._send_images(stream), self._send_description(stream)
        )

    async def _beat(self, stream: Stream) -> None:
        """At the period that the manager named last; a first one when it names another."""
        while True:
            self._repaced.clear()
            await first_of(self._clock.sleep(self._period_s), self._repaced.wait())
            await stream.say(heartbeat=wire.Heartbeat())

    async def _send_reports(self, stream: Stream) -> None:
        while True:
            batch = await self._reporter.next_batch()
            await stream.say(reports=wire.TaskReports(reports=[_report(task_id, status) for task_id, status in batch]))

    async def _send_images(self, stream: Stream) -> None:
        """The first change at once: who imports an image makes a service of it next."""
        with self._images.changes.subscribe() as changes:
            said = stream.hello.images  # it may have changed while the manager let us in
            while True:
                if (now := self._inventory()) != said:
                    await stream.say(images=now)
                    said = now
                    await self._clock.sleep(IMAGES_S)
                await changes.wait()
                with contextlib.suppress(Lagged):
                    changes.drain()

    async def _send_description(self, stream: Stream) -> None:
        said = stream.hello.description
        while True:
            await self._clock.sleep(DESCRIBE_EVERY_S)
            now = self._description()
            if now != said:
                await stream.say(description=now)
                said = now

    def _description(self) -> types_pb2.NodeDescription:
        return to_wire(self._describe(), types_pb2.NodeDescription)

    def _inventory(self) -> wire.ImageInventory:
        held = [wire.HeldImage(reference=name, manifest_digest=digest) for name, digest in self._images.held()]
        return wire.ImageInventory(images=held)


def _report(task_id: str, status: TaskStatus) -> wire.TaskReport:
    return wire.TaskReport(task_id=task_id, status=to_wire(status, types_pb2.TaskStatus))
