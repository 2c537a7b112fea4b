"""Roster: where the cluster's managers are, by the records that all of them share, and whether there may be more."""

from __future__ import annotations

import msgspec

from manager.control.action import change, commit, touched
from manager.store.base import Store
from manager.store.mirror import Mirror
from manager.store.view import View
from shoal.clock import Clock
from shoal.errors import Unsupported
from shoal.model.node import Role
from shoal.settings import ETCD_CLIENT_PORT, ETCD_PEER_PORT, host_port

_RETRY_S = 0.05


def managers_of(view: View) -> list[str]:
    """Where managers listen ("ADDR:PORT"): those that serve, then those that are to, each by their nodes' ids."""
    serving = [presence.address for _, presence in sorted(view.managers.items())]
    silent = [
        node.manager.address
        for id, node in sorted(view.nodes.items())
        if node.spec.role is Role.MANAGER and node.manager.address and id not in view.managers
    ]
    return list(dict.fromkeys([*serving, *silent]))


def members_of(view: View) -> dict[str, str]:
    """Where the members of the managers' own etcd serve ("ADDR:PORT"), by their nodes' ids; empty without one."""
    return {
        id: f"{host_port(node.manager.address, 0)[0]}:{ETCD_CLIENT_PORT}"
        for id, node in sorted(view.nodes.items())
        if node.manager.member_id and node.manager.address
    }


def peer_url(address: str) -> str:
    """Where the others reach the member of the managers' own etcd beside the manager that listens on `address`."""
    return f"https://{host_port(address, 0)[0]}:{ETCD_PEER_PORT}"


async def note_address(store: Store, mirror: Mirror, node_id: str, address: str, clock: Clock) -> None:
    """Let a node's record say where its manager listens, also while that does not serve."""
    while (node := mirror.nodes.get(node_id)) is not None and node.manager.address != address:
        manager = msgspec.structs.replace(node.manager, address=address)
        done = await commit(store, [change(touched(node, clock.now_ns(), manager=manager), "where it listens")])
        await (clock.sleep(_RETRY_S) if done.conflicts else mirror.reached(done.revision))


def check_shared(store_kind: str) -> None:
    """Raises Unsupported where the store is one manager's alone."""
    if store_kind == "sqlite":
        raise Unsupported(
            "this cluster keeps its state in an embedded SQLite store, which has one manager",
            hint="move it to etcd with 'shoal swarm migrate --to etcd', or join hosts as workers",
        )
