"""Progress: following a service until its tasks are what its spec says. `look` is pure, `converge` draws it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import NamedTuple

from cli.client import Client
from cli.output.screen import Screen, bar
from cli.service.words import name_of_state
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import (
    NODE_STATE_DOWN,
    SERVICE_MODE_GLOBAL,
    TASK_STATE_RUNNING,
    Service,
    Task,
)

# Tasks that run this long after the last of them came up are taken for well.
STEADY_S = 2.0
_LINES = 20
_STEPS = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")
_WIDTH = 50


class Place(NamedTuple):
    """One place of the service: `state` of its furthest task of the present version, and what is in its way."""

    name: str
    state: str
    trouble: str = ""


class Look(NamedTuple):
    """A service at one moment: `done` of `total` places run, and so many other tasks have still to end."""

    places: tuple[Place, ...]
    done: int
    total: int
    leaving: int

    @property
    def settled(self) -> bool:
        return self.done == self.total and not self.leaving


async def converge(client: Client, service: Service, *, quiet: bool) -> int:
    """Stay until the service is settled and has been for a while. Ctrl-C leaves it to the cluster."""
    drawing = Drawing(Screen(sys.stdout), quiet=quiet)
    try:
        await _follow(client, service, drawing)
    except asyncio.CancelledError:
        # Docker's way: what was asked for goes on, so that nothing has failed. The end of the watch is here.
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        drawing.say(f"Operation continuing in background.\nUse `shoal service ps {service.meta.id}` to check progress.")
        return 0
    drawing.say(f"verify: Service {service.meta.id} converged")
    return 0


async def _follow(client: Client, service: Service, drawing: Drawing) -> None:
    """Draw what the manager tells, until nothing more happens to a settled service."""
    looks: asyncio.Queue[Look | None] = asyncio.Queue()

    async def watch() -> None:
        request = control_pb2.WatchServiceRequest(service=service.meta.id)
        async for response in client.control.WatchService(request):
            if response.service.service.meta.version < service.meta.version:
                continue
            seen = look(response.service, response.tasks)
            if seen.leaving and seen.done == seen.total:
                seen = look(response.service, response.tasks, await _nodes_down(client))
            await looks.put(seen)

    watching = asyncio.ensure_future(watch())
    watching.add_done_callback(lambda _: looks.put_nowait(None))
    settled = False
    try:
        while True:
            try:
                async with asyncio.timeout(STEADY_S if settled else None):
                    seen = await looks.get()
            except TimeoutError:
                return
            if seen is None:
                await watching
                return
            settled = seen.settled
            drawing.show(seen)
    finally:
        watching.cancel()


async def _nodes_down(client: Client) -> frozenset[str]:
    answer = await client.control.ListNodes(control_pb2.ListNodesRequest())
    return frozenset(view.node.meta.id for view in answer.nodes if view.node.status.state == NODE_STATE_DOWN)


def look(view: control_pb2.ServiceView, tasks: Iterable[Task], down: frozenset[str] = frozenset()) -> Look:
    """What the tasks of a service come to. Nobody waits for what is to end on nodes that are `down`."""
    service = view.service
    everywhere = service.spec.mode == SERVICE_MODE_GLOBAL
    present: dict[str | int, Task] = {}
    last: dict[str | int, Task] = {}
    leaving = 0
    for task in tasks:
        place = task.node_id if everywhere else task.slot
        last[place] = task
        wanted = task.desired <= TASK_STATE_RUNNING
        if wanted and task.task_version == service.task_version and _in_range(task, service):
            before = present.get(place)
            if before is None or before.status.state < task.status.state:
                present[place] = task
        elif task.status.state <= TASK_STATE_RUNNING and task.node_id not in down:
            leaving += 1
    keys: list[str | int] = sorted(present, key=str) if everywhere else list(range(1, service.spec.replicas + 1))
    places = tuple(_place(key, present.get(key), last.get(key), everywhere=everywhere) for key in keys)
    done = sum(1 for place in places if place.state == "running")
    return Look(places, done, view.desired, leaving)


def _in_range(task: Task, service: Service) -> bool:
    return service.spec.mode == SERVICE_MODE_GLOBAL or 1 <= task.slot <= service.spec.replicas


def _place(key: str | int, task: Task | None, last: Task | None, *, everywhere: bool) -> Place:
    name = str(key)[:12] if everywhere else str(key)
    if task is None:
        return Place(name, "new", last.status.error if last is not None else "")
    trouble = task.status.error
    state = name_of_state(task.status.state)
    if not trouble and state == "pending":
        trouble = task.status.message
    if not trouble and last is not None and state != "running":
        trouble = last.status.error
    return Place(name, state, trouble)


class Drawing:
    """A `Look` on a terminal, redrawn in place; elsewhere a line for what is new."""

    def __init__(self, screen: Screen, *, quiet: bool) -> None:
        self._screen = screen
        self._quiet = quiet
        self._said: set[str] = set()

    def show(self, seen: Look) -> None:
        if self._quiet:
            return
        overall = f"overall progress: {seen.done} out of {seen.total} tasks"
        if self._screen.live:
            lines = [self._line(place, seen.total) for place in seen.places] if seen.total <= _LINES else []
            self._screen.draw([overall, *lines, *(["verify: waiting that tasks are stable"] if seen.settled else [])])
            return
        self._once(overall)
        for place in seen.places:
            if place.trouble:
                self._once(f"{place.name}/{seen.total}: {place.trouble}")

    def say(self, line: str) -> None:
        if not self._quiet:
            self._screen.say(line)

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._screen.say(line)

    def _line(self, place: Place, total: int) -> str:
        if place.trouble:
            return f"{place.name}/{total}: {place.trouble}"
        step = _STEPS.index(place.state) + 1 if place.state in _STEPS else 0
        return f"{place.name}/{total}: {place.state:<9} {bar(step, len(_STEPS), _WIDTH)}"
