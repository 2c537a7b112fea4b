"""Audit entry: one line of the record of who did what."""

from __future__ import annotations

from shoal.model.base import Value


class AuditEntry(Value, frozen=True):
    """`previous` is the SHA-256 of the line before, as it is stored (see `manager/audit/chain.py`). `actor` is "user
    NAME", "node ID", "root of NODE" or one that the cluster has no name for; `source` the address it came from. `count`
    is how many equal ones the line stands for."""

    number: int = 0
    at_ns: int = 0
    previous: bytes = b""
    actor: str = ""
    source: str = ""
    verb: str = ""
    object: str = ""
    decision: str = ""
    outcome: str = ""
    count: int = 1
