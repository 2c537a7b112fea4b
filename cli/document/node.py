"""A node as `docker node inspect` shows it."""

from __future__ import annotations

from typing import Any

from cli.document.common import amount, enum_word, record
from shoal.v1.control_pb2 import NodeView
from shoal.v1.types_pb2 import Availability, NodeState, Role


def document(view: NodeView) -> dict[str, Any]:
    node, described = view.node, view.node.description
    out = {
        **record(node.meta),
        "Spec": {
            "Labels": dict(node.spec.labels),
            "Role": enum_word(Role.Name(node.spec.role), "ROLE_"),
            "Availability": enum_word(Availability.Name(node.spec.availability), "AVAILABILITY_"),
        },
        "Description": {
            "Hostname": described.hostname,
            "Platform": {"Architecture": described.architecture, "OS": described.os},
            "Resources": amount(described.resources),
            "Engine": {"EngineVersion": described.agent_version, "Labels": dict(described.engine_labels)},
            "Kernel": described.kernel,
        },
        "Status": {
            "State": enum_word(NodeState.Name(node.status.state), "NODE_STATE_"),
            "Message": node.status.message,
            "Addr": described.address,
        },
    }
    if view.manager_status:
        out["ManagerStatus"] = {
            "Leader": view.manager_status == "Leader",
            "Reachability": "unreachable" if view.manager_status == "Unreachable" else "reachable",
            "Addr": described.address,
        }
    return out
