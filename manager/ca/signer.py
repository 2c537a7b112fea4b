"""Signer: the authority of the cluster's record as it is now. While the root is being replaced, the new one signs.

Certificates of the new root come with its key signed by the old one, so that whoever trusts only that can follow; for
a while this is so after the old root has gone, too (`rotation`).
"""

from __future__ import annotations

from manager.ca.authority import CA_KEY, Authority, Seal
from manager.store.view import View
from shoal.errors import Unavailable
from shoal.model.cluster import Cluster


class Signer:
    """`view` follows the store. Unsealing is done once for each change of the record's keys."""

    def __init__(self, view: View, seal: Seal) -> None:
        self._view = view
        self._seal = seal
        self._of: tuple[object, ...] = ()
        self._authority: Authority | None = None

    def current(self) -> Authority:
        """Raises InvalidArgument when the record does not open with this manager's seal."""
        cluster = self._view.cluster
        if cluster is None:
            raise Unavailable("the cluster is not set up yet", hint="try again in a moment")
        of = (cluster.sealed_ca_key, cluster.rotation, cluster.former_roots)
        if self._authority is None or of != self._of:
            self._authority, self._of = authority_of(cluster, self._seal), of
        return self._authority


def authority_of(cluster: Cluster, seal: Seal) -> Authority:
    """Who signs for `cluster` now."""
    former = "".join(each.cross_pem for each in reversed(cluster.former_roots))
    if (rotation := cluster.rotation) is None:
        key_pem = seal.unseal(cluster.sealed_ca_key, CA_KEY)
        return Authority.load(key_pem, cluster.root_ca_pem, chain_pem=former + cluster.root_ca_pem)
    return Authority.load(
        seal.unseal(rotation.sealed_ca_key, CA_KEY),
        rotation.root_ca_pem,
        # Both roots: join tokens name the old one until the end, and then the new one.
        chain_pem=rotation.cross_pem + former + cluster.root_ca_pem + rotation.root_ca_pem,
        trust_pem=cluster.root_ca_pem + rotation.root_ca_pem,
    )
