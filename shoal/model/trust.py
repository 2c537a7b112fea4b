"""Trust: which certificates of the cluster's count less than they say. TLS alone cannot know: it only sees that they
were signed and have not run out."""

from __future__ import annotations

from shoal.model.base import Meta, Value


class Revocation(Value, frozen=True):
    """The certificates of a node that was removed; its id is the node's. By `until_ns` all of them have run out."""

    meta: Meta = Meta()
    until_ns: int = 0


class Trust(Value, frozen=True):
    """What a manager tells every node about whom to let in.

    `manager_ids` are the nodes that are managers now, `root_ca_pem` the roots to trust. Who has a certificate of
    another issuer than `issuer_key` renews it within `renew_within_ns`.
    """

    manager_ids: tuple[str, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    root_ca_pem: str = ""
    issuer_key: str = ""
    renew_within_ns: int = 0
