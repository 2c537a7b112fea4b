"""Service: what the user wants to run, how many times, and how it is reached."""

from __future__ import annotations

import enum

from shoal.model.base import Meta, Resources, Value
from shoal.model.container import ContainerSpec, RestartPolicy
from shoal.model.network import NetworkAttachment, Port


class ServiceMode(enum.IntEnum):
    REPLICATED = 1
    GLOBAL = 2


class Placement(Value, frozen=True):
    """Where tasks may run: all `constraints` must hold ("node.labels.zone==b"); `max_per_node` 0 means no limit."""

    constraints: tuple[str, ...] = ()
    max_per_node: int = 0
    preferences: tuple[str, ...] = ()


class TaskSpec(Value, frozen=True):
    """What each task of a service is. A raised `force_update` redeploys without any other change."""

    container: ContainerSpec = ContainerSpec()
    limits: Resources = Resources()
    reservations: Resources = Resources()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachment, ...] = ()
    force_update: int = 0


class EndpointMode(enum.IntEnum):
    VIP = 1
    DNSRR = 2


class UpdateOrder(enum.IntEnum):
    STOP_FIRST = 1
    START_FIRST = 2


class UpdatePolicy(Value, frozen=True):
    """How a changed spec reaches the tasks: `parallelism` slots at a time (0: all), `delay_ns` between."""

    parallelism: int = 1
    delay_ns: int = 0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


class ServiceSpec(Value, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int = 0
    task: TaskSpec = TaskSpec()
    endpoint_mode: EndpointMode = EndpointMode.VIP
    ports: tuple[Port, ...] = ()
    update: UpdatePolicy = UpdatePolicy()


class VirtualAddress(Value, frozen=True):
    """A service's address on one network."""

    network_id: str = ""
    address: str = ""


class Service(Value, frozen=True):
    """`task_version` rises whenever `spec.task` changes; a task refers to its spec by (service id, task_version).
    `ports` and `addresses` are what the allocator gave. `previous` is what a rollback goes back to; `outgoing` the
    spec of the task version before, whose tasks may still run."""

    meta: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    task_version: int = 0
    ports: tuple[Port, ...] = ()
    addresses: tuple[VirtualAddress, ...] = ()
    previous: ServiceSpec | None = None
    image_digest: str = ""
    outgoing: ServiceSpec | None = None
