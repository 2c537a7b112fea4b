"""A host without a kernel: containers and a balance in memory, that do what they are told and say what they did."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import msgspec

from agent.taskrun import Host
from shoal.clock import Clock
from shoal.errors import Conflict, NotFound, ShoalError
from shoal.model.assignment import AssignedTask, NetworkAssignment, Template
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec, ContainerState, ContainerStatus
from shoal.model.health import Health, HealthState
from shoal.model.network import Endpoint
from shoal.model.node import NodeDescription
from shoal.model.service import TaskSpec

DESCRIBED = NodeDescription(hostname="n1", os="linux", architecture="x86_64")
TEMPLATE = Template("s1", 1, "web", {}, TaskSpec(container=ContainerSpec(image="web:1")), "sha256:1")


def task(number: int, **fields: object) -> AssignedTask:
    return AssignedTask(task_id=f"t{number}", service_id="s1", task_version=1, slot=number, **fields)  # type: ignore[arg-type]


class Containers:
    """By name. `done` is the order of things; `refuse` what the next call of a kind raises."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.there: dict[str, Container] = {}
        self.refuse: dict[str, list[ShoalError]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._pids = itertools.count(100)

    def find(self, name: str) -> Container | None:
        return self.there.get(name)

    async def list(self, *, all: bool = False) -> list[Container]:
        return list(self.there.values())

    async def create(self, wanted: Container) -> Container:
        self._do("create", wanted.name)
        if wanted.name in self.there:
            raise Conflict(f"name {wanted.name} in use")
        self.there[wanted.name] = msgspec.structs.replace(
            wanted, meta=Meta(id=f"id-{wanted.name}"), health=wanted.spec.health
        )
        return self.there[wanted.name]

    async def start(self, ref: str) -> Container:
        self._do("start", ref)
        health = Health(HealthState.STARTING) if self.there[ref].health.test else Health()
        return self._set(ref, state=ContainerState.RUNNING, pid=next(self._pids), started_at_ns=1, health=health)

    async def stop(self, ref: str) -> Container:
        self._do("stop", ref)
        self.exit(ref, 143)
        return self.there[ref]

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        name = next((each.name for each in self.there.values() if ref in (each.name, each.meta.id)), None)
        if name is None:
            raise NotFound(f"No such container: {ref}")
        self._do("remove", name)
        del self.there[name]

    async def wait_change(self, ref: str, health: HealthState) -> None:
        while self.there[ref].status.pid and self.there[ref].status.health.state is health:
            self._news[ref] = asyncio.Event()
            await self._news[ref].wait()

    def exit(self, name: str, code: int) -> None:
        """The process of a container ends by itself."""
        self._set(name, state=ContainerState.EXITED, pid=0, exit_code=code)

    def judge(self, name: str, state: HealthState) -> None:
        """A health check comes to a result."""
        self._set(name, health=Health(state))

    def put(self, name: str, task_id: str, state: ContainerState) -> None:
        """A container from before."""
        started = 0 if state is ContainerState.CREATED else 1
        status = ContainerStatus(state=state, pid=7 if state is ContainerState.RUNNING else 0, started_at_ns=started)
        self.there[name] = Container(meta=Meta(id=f"id-{name}"), name=name, task_id=task_id, status=status)

    def _set(self, name: str, **facts: object) -> Container:
        container = self.there[name]
        status = msgspec.structs.replace(container.status, **facts)
        self.there[name] = msgspec.structs.replace(container, status=status)
        self._news.setdefault(name, asyncio.Event()).set()
        return self.there[name]

    def _do(self, what: str, name: str) -> None:
        if self.refuse.get(what):
            raise self.refuse[what].pop(0)
        self.done.append(f"{what} {name}")


class Balance:
    def __init__(self, done: list[str], *, balanced: bool = True) -> None:
        self.done = done
        self.balanced = balanced

    async def joined(self, networks: Sequence[str]) -> None:
        return None

    async def leave(self, task_id: str, service_id: str) -> bool:
        self.done.append(f"leave {task_id}")
        return self.balanced

    async def withdrawn(self, task_id: str) -> None:
        self.done.append(f"withdrawn {task_id}")

    def forget(self, task_id: str) -> None:
        self.done.append(f"forget {task_id}")


class Networks:
    def __init__(self) -> None:
        self.wishes: list[tuple[tuple[NetworkAssignment, ...], tuple[Endpoint, ...]]] = []

    async def assign(self, networks: Sequence[NetworkAssignment], endpoints: Sequence[Endpoint]) -> None:
        self.wishes.append((tuple(networks), tuple(endpoints)))


class Images:
    """Obtains at once, or when the gate opens; or refuses."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusal: ShoalError | None = None

    async def __call__(self, template: Template) -> str:
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        return template.spec.container.image


class Bench(msgspec.Struct):
    """A host with its parts at hand."""

    host: Host
    containers: Containers
    balance: Balance
    images: Images
    done: list[str]


def bench(clock: Clock) -> Bench:
    done: list[str] = []
    containers, balance, images = Containers(done), Balance(done), Images()
    host = Host("node1", DESCRIBED, containers, balance, images, balance.withdrawn, clock)
    return Bench(host, containers, balance, images, done)
