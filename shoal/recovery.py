"""Recovery: what an agent tells the process that makes its manager's data (`manager/recovery.py`)."""

from __future__ import annotations

import msgspec

from shoal.model.access import StoreAccess


class Secrets(msgspec.Struct, frozen=True):
    """Said on stdin, as JSON: arguments can be read by everybody on the host (proc(5)). What opens a backup: the
    passphrase or the unlock key of the seal in it, or the seal, as a manager has it on its disk; `store` is where the
    state goes, or is; `source` where a migration takes it from. No part of it is kept."""

    passphrase: str = ""
    seal: bytes = b""
    store: StoreAccess = StoreAccess()
    source: StoreAccess = StoreAccess()
    unlock_key: str = ""

    def __repr__(self) -> str:
        return "Secrets(***)"
