"""Token: a join token that was made for an occasion. Its secret is known to who made it, and to nobody after that.

The one secret per role that always holds (`swarm join-token`) is no record of this kind: it stands in the Cluster.
"""

from __future__ import annotations

from shoal.model.base import Meta, Value
from shoal.model.node import Role


class Token(Value, frozen=True):
    """`secret_hash` is the SHA-256 of the secret. It lets `uses` hosts in (0: any number), `used` of which have come;
    after `expires_at_ns` (0: never) or `revoked_at_ns` (0: not) none."""

    meta: Meta = Meta()
    role: Role = Role.WORKER
    description: str = ""
    secret_hash: bytes = b""
    uses: int = 0
    used: int = 0
    expires_at_ns: int = 0
    revoked_at_ns: int = 0
