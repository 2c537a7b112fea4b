"""Join token: `SHTKN-1-<fingerprint>-<secret>`, what an operator carries to a host that shall join.

The fingerprint (50 base-36 digits of the SHA-256 of the root certificate) lets the host check that it speaks to
the right cluster; the secret (25 digits, 128 bits of chance) lets the cluster check that the host was asked in.
One secret per role always holds; both stand in the Cluster record, sealed. Others are made for an occasion, with an
end (`shoal/model/token.py`): of these the store keeps a hash. Whom a token lets in is decided in `admission`.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from manager.ca.authority import Seal
from shoal.errors import InvalidArgument
from shoal.ids import base36
from shoal.model.cluster import Cluster
from shoal.model.node import Role

_PREFIX = "SHTKN-1"
_FORM = re.compile(rf"{_PREFIX}-([0-9a-z]{{50}})-([0-9a-z]{{25}})")


class JoinToken(msgspec.Struct, frozen=True):
    """`text` is the only way to see it whole."""

    fingerprint: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises InvalidArgument for what can be no token of any cluster."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise InvalidArgument(
                f"the join token is malformed: it is {_PREFIX}-, 50 digits, a hyphen and 25 digits",
                hint="copy it whole from 'shoal swarm join-token worker'",
            )
        return cls(found[1], found[2])

    @property
    def text(self) -> str:
        return f"{_PREFIX}-{self.fingerprint}-{self.secret}"

    def same(self, other: JoinToken) -> bool:
        """Compared in constant time, so that an answer's delay tells nothing."""
        return hmac.compare_digest(self.text, other.text)

    def __repr__(self) -> str:
        return f"JoinToken({_PREFIX}-{self.fingerprint}-***)"


@functools.lru_cache(maxsize=8)
def fingerprint(root_ca_pem: str) -> str:
    """The 50 digits by which a root certificate is known."""
    root = x509.load_pem_x509_certificate(root_ca_pem.encode())
    digest = hashlib.sha256(root.public_bytes(serialization.Encoding.DER)).digest()
    return base36(int.from_bytes(digest), 50)


def new_secret() -> str:
    """25 base-36 digits, 128 bits of chance."""
    return base36(int.from_bytes(os.urandom(16)), 25)


def sealed_secret(seal: Seal, role: Role) -> bytes:
    """A new join secret for `role`, as the Cluster record keeps it."""
    return seal.seal(new_secret().encode(), _purpose(role))


def token_of(cluster: Cluster, role: Role, seal: Seal) -> JoinToken:
    """The token that lets a host join `cluster` as `role` today."""
    sealed = cluster.sealed_manager_secret if role is Role.MANAGER else cluster.sealed_worker_secret
    return JoinToken(fingerprint(cluster.root_ca_pem), seal.unseal(sealed, _purpose(role)).decode())


def rotated(cluster: Cluster, role: Role, seal: Seal) -> Cluster:
    """`cluster` with a new secret for `role`: tokens handed out before are worth nothing from then on."""
    fresh = sealed_secret(seal, role)
    if role is Role.MANAGER:
        return msgspec.structs.replace(cluster, sealed_manager_secret=fresh)
    return msgspec.structs.replace(cluster, sealed_worker_secret=fresh)


def _purpose(role: Role) -> str:
    return f"{role.name.lower()} join secret"
