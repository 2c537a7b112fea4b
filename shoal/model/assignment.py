"""Assignment: what one node has been told to do. The dispatcher computes it, the agent carries it out.

The same messages stand in `proto/shoal/v1/dispatcher.proto`.
"""

from __future__ import annotations

from shoal.model.base import Value
from shoal.model.network import Backend, Network, Port
from shoal.model.service import TaskSpec
from shoal.model.task import TaskState


class Template(Value, frozen=True):
    """The part that all tasks of one service and version share. `ports` are host-mode ones only."""

    service_id: str = ""
    task_version: int = 0
    service_name: str = ""
    service_labels: dict[str, str] = {}
    spec: TaskSpec = TaskSpec()
    image_digest: str = ""
    ports: tuple[Port, ...] = ()


class AssignedTask(Value, frozen=True):
    task_id: str = ""
    service_id: str = ""
    task_version: int = 0
    slot: int = 0
    desired: TaskState = TaskState.RUNNING


class NetworkPeer(Value, frozen=True):
    """Another node's part of an overlay: its address on the underlay and the block it hands out."""

    node_id: str = ""
    address: str = ""
    block: str = ""


class AssignedPeer(Value, frozen=True):
    """A node's part of a network. All nodes of it are told the same: each is among its own peers."""

    network_id: str = ""
    peer: NetworkPeer = NetworkPeer()


class AssignedBackend(Value, frozen=True):
    """A task that answers at an endpoint."""

    service_id: str = ""
    network_id: str = ""
    backend: Backend = Backend()


class NetworkAssignment(Value, frozen=True):
    """An overlay that this node takes part in. `block` is this node's own."""

    network: Network = Network()
    block: str = ""
    peers: tuple[NetworkPeer, ...] = ()
