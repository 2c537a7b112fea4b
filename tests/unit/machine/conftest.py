"""Hosts as facts, for whatever is decided from facts alone."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from machine.model import Inventory, Machine, Role
from machine.provision import layout
from machine.provision.facts import Facts, Membership, Node

VERSION = "0.1.0-aaaaaaaaaaaa"


class Rack:
    """Three machines, n1 the manager, and what they are: bare, or nodes of one cluster already."""

    version = VERSION
    inventory = Inventory(
        (
            Machine("n1", "10.0.0.1", Role.MANAGER),
            Machine("n2", "10.0.0.2", labels={"zone": "a"}),
            Machine("n3", "10.0.0.3"),
        )
    )
    versions = {"n1": VERSION, "n2": VERSION, "n3": VERSION}

    def bare(self, number: int, **values: Any) -> Facts:
        facts = Facts(
            hostname=f"n{number}",
            root=True,
            offset_s=0.0,
            architecture="x86_64",
            kernel="6.1.0-13-amd64",
            machine_id=f"{number:032x}",
            python="/usr/bin/python3.11",
            cgroup="v2",
            overlay=True,
            vxlan=True,
            programs=frozenset({"nft", "ip", "flock"}),
            free_kib={"/opt": 9 << 20, "/var/lib": 9 << 20},
            systemd=True,
        )
        return msgspec.structs.replace(facts, **values)

    def node(self, number: int, **values: Any) -> Facts:
        """One that is as wanted."""
        nodes = None
        if number == 1:
            labels: dict[int, dict[str, str]] = {1: {}, 2: {"zone": "a"}, 3: {}}
            nodes = tuple(Node(f"id{n}", True, n == 1, "active", labels[n]) for n in labels)
        as_wanted: dict[str, Any] = {
            "current": VERSION,
            "installed": (VERSION,),
            "unit_sha256": hashlib.sha256(layout.UNIT.encode()).hexdigest(),
            "enabled": True,
            "agent": VERSION,
            "manager": VERSION if number == 1 else "",
            "membership": Membership(f"id{number}", "c1", number == 1),
            "nodes": nodes,
            "listening": frozenset({"2376/tcp"}),
        }
        return self.bare(number, **{**as_wanted, **values})


@pytest.fixture
def rack() -> Rack:
    return Rack()
