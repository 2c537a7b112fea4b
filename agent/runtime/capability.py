"""Linux capabilities: names, numbers and sets as bit masks (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

NAMES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
        " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT"
        " SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL"
        " SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
_NUMBERS = {name: number for number, name in enumerate(NAMES)}
SYS_ADMIN = 1 << _NUMBERS["CAP_SYS_ADMIN"]
SYS_RESOURCE = 1 << _NUMBERS["CAP_SYS_RESOURCE"]


def mask_of(names: Iterable[str]) -> int:
    """The set as a bit mask. Raises KeyError with a name that is no capability."""
    mask = 0
    for name in names:
        mask |= 1 << _NUMBERS[name]
    return mask


def own_permitted() -> int:
    """What this process may hand on: nobody can be given more."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    raise RuntimeError("/proc/self/status has no CapPrm line")
