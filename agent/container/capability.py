"""Which Linux capabilities a container's process gets: docker's fourteen, and what is added and dropped. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent.runtime.capability import NAMES
from shoal.errors import InvalidArgument

ALL = "ALL"
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def known_capability(word: str, option: str) -> str:
    """The full name, or "ALL". Raises InvalidArgument in docker's words."""
    name = word.upper()
    if name in (ALL, "CAP_ALL"):
        return ALL
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in NAMES:
        raise InvalidArgument(f'invalid {option}: unknown capability: "{name}"')
    return name


def capabilities(
    *, privileged: bool, add: Sequence[str], drop: Sequence[str], available: Collection[str]
) -> tuple[str, ...]:
    """In the kernel's order, none that this host does not have to give (`available`).

    Docker's rules: `--cap-drop ALL` leaves what is added, `--cap-add ALL` leaves what is not dropped.
    """
    added = {known_capability(each, "CapAdd") for each in add}
    dropped = {known_capability(each, "CapDrop") for each in drop}
    if privileged:
        chosen = set(NAMES)
    elif ALL in added:
        chosen = set(NAMES) - dropped
    elif ALL in dropped:
        chosen = added
    else:
        chosen = (set(DEFAULT) - dropped) | added
    return tuple(each for each in NAMES if each in chosen and each in available)
