"""Roster: where the cluster's managers are, from the records that all of them share. Pure."""

from __future__ import annotations

from manager.store.view import View
from shoal.model.node import Role


def managers_of(view: View) -> list[str]:
    """Where managers listen ("ADDR:PORT"): those that serve, then those that are to, each by their nodes' ids."""
    serving = [presence.address for _, presence in sorted(view.managers.items())]
    silent = [
        node.manager.address
        for id, node in sorted(view.nodes.items())
        if node.spec.role is Role.MANAGER and node.manager.address and id not in view.managers
    ]
    return list(dict.fromkeys([*serving, *silent]))
