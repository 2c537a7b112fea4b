"""When two steps are the same: everything that goes into a step, as one digest. Pure.

A step stands on the chain id of the layers below it, which is the content of all of them: so what comes after a step
that was done again, and came out the same, need not be done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent.build.flags import Mount, MountKind
from agent.build.state import PROXIES

# Another number after a change of how steps work makes all that was kept worthless.
_VERSION = 1


def key_of(kind: str, below: Sequence[str], *parts: Any) -> str:
    """`below`: chain ids, bottom first, of which the last one says all."""
    wanted = (_VERSION, kind, below[-1] if below else "", parts)
    return "sha256:" + hashlib.sha256(msgspec.msgpack.encode(wanted, order="deterministic")).hexdigest()


def run_key(
    below: Sequence[str],
    *,
    argv: Sequence[str],
    environment: Mapping[str, str],
    workdir: str,
    user: str,
    place: Sequence[Any],
    mounts: Sequence[tuple[Mount, str]],
) -> str:
    """`place`: network, hosts and their like; `mounts` with the digest of what they show ("" for what is not part of a
    result: caches, secrets)."""
    counted = {name: value for name, value in environment.items() if name not in PROXIES}
    shown = [(_counted(mount), content) for mount, content in mounts]
    return key_of("run", below, argv, counted, workdir, user, place, shown)


def _counted(mount: Mount) -> Mount:
    """Without what only says where a secret comes from."""
    return msgspec.structs.replace(mount, required=False) if mount.kind == MountKind.SECRET else mount
