"""Facts that no record holds, as they were found at one moment; and what a check makes of facts."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec


class Verdict(enum.IntEnum):
    """A NOTE is worth knowing, and nothing is wrong."""

    OK = 1
    NOTE = 2
    WARNING = 3
    FAILURE = 4


class Finding(msgspec.Struct, frozen=True):
    """`detail` says what was found, `hint` what to do; empty where nothing is to be done."""

    check: str
    verdict: Verdict
    detail: str
    hint: str = ""


class HostFacts(msgspec.Struct, frozen=True):
    """What a node's agent answered, or in `error` why it did not. `ahead_s` is by how much its clock is ahead of ours,
    known to within `doubt_s`."""

    error: str = ""
    ahead_s: float = 0.0
    doubt_s: float = 0.0
    disk_bytes: int = 0
    disk_free_bytes: int = 0
    machine_id: str = ""


class StoreFacts(msgspec.Struct, frozen=True):
    """`write_s` is how long a durable write took; `trouble` why there can be none. A size of 0 is not known. Of etcd's
    `members`, each by name, what is wrong with it, empty when it is well; `alarms` are what etcd raises itself."""

    kind: str
    trouble: str = ""
    write_s: float = 0.0
    size_bytes: int = 0
    members: tuple[tuple[str, str], ...] = ()
    alarms: tuple[str, ...] = ()


class Facts(msgspec.Struct, frozen=True):
    """`hosts` has every node that is up, by id; `leader_id` is empty while nobody leads."""

    now_ns: int
    version: str
    leader_id: str
    store: StoreFacts
    hosts: Mapping[str, HostFacts]
