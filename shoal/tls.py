"""Who is who on the wire: identities, the credentials made from them, and the peer behind a call.

A node's certificate says CN = node id, O = cluster id, OU = role, and as alternative names the URI
`spiffe://CLUSTER/node/ID` and the DNS names that peers check it by: `ID.node.shoal`, and `manager.shoal` for
managers. A user's says CN = name, O = cluster id, OU = `user` and the URI `spiffe://CLUSTER/user/NAME`; what the user
may do, it does not say. TLS itself refuses who has no certificate of the cluster (RFC 8446; gRPC offers 1.3 first).
"""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shoal.errors import InvalidArgument
from shoal.files import read_optional, write_atomic
from shoal.model.node import CertificateInfo, Role

MANAGER_NAME = "manager.shoal"
# What stands in place of a node's role in a user's certificate.
USER = "user"
# A certificate's life begins this long before it is issued: hosts whose clock is behind must take it at once.
BACKDATE = datetime.timedelta(hours=1)
# Before what is signed, so that this signature serves no other purpose.
_RESTORE = b"shoal restore\n"


def node_name(node_id: str) -> str:
    """The DNS name in a node's certificate."""
    return f"{node_id}.node.shoal"


class Peer(msgspec.Struct, frozen=True):
    """The member of the cluster at the other end, as its certificate says."""

    node_id: str
    role: Role
    cluster_id: str


class UserPeer(msgspec.Struct, frozen=True):
    """The user at the other end, as its certificate says. `key` names the key that it showed itself by."""

    name: str
    cluster_id: str
    key: str


class Identity(msgspec.Struct, frozen=True):
    """A certificate (leaf first, root last), its key, and the root that vouches for others. PEM."""

    certificate_pem: str
    key_pem: str
    root_ca_pem: str

    def __repr__(self) -> str:
        return f"Identity(node_id={self.node_id!r}, key_pem=***)"

    @property
    def leaf(self) -> x509.Certificate:
        return _parse(self.certificate_pem)

    @property
    def peer(self) -> Peer:
        return _peer_in(self.leaf)

    @property
    def node_id(self) -> str:
        return self.peer.node_id

    @property
    def cluster_id(self) -> str:
        return self.peer.cluster_id

    @property
    def role(self) -> Role:
        return self.peer.role

    @property
    def issued_at(self) -> datetime.datetime:
        return self.leaf.not_valid_before_utc + BACKDATE

    @property
    def not_after(self) -> datetime.datetime:
        return self.leaf.not_valid_after_utc

    def valid_at(self, now_ns: int) -> bool:
        """Neither run out nor, where a clock was ahead when it was issued, yet to begin."""
        return self.leaf.not_valid_before_utc.timestamp() <= now_ns / 1e9 < self.not_after.timestamp()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that the certificate says."""
        names = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(str(each) for each in names.get_values_for_type(x509.IPAddress))

    @property
    def info(self) -> CertificateInfo:
        """What others are told of the certificate."""
        return info_of(self.certificate_pem)

    def save(self, folder: Path) -> None:
        """Write `identity.json` (0600) into `folder` (0700): one file, so key and certificate always match."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(folder / "identity.json", msgspec.json.encode(self))

    @classmethod
    def load(cls, folder: Path) -> Identity | None:
        """The identity in `folder`, or None where there is none. Raises InvalidArgument for a damaged one."""
        data = read_optional(folder / "identity.json")
        if data is None:
            return None
        try:
            identity = msgspec.json.decode(data, type=cls)
            _ = identity.peer
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidArgument(
                f"the identity in {folder} cannot be read: {error}", hint="leave the cluster and join again"
            ) from error
        return identity


def info_of(certificate_pem: str) -> CertificateInfo:
    """What the first certificate of a chain says."""
    return _info_in(_parse(certificate_pem))


@functools.lru_cache(maxsize=4096)
def _info_in(certificate: x509.Certificate) -> CertificateInfo:
    until_ns = int(certificate.not_valid_after_utc.timestamp()) * 10**9
    return CertificateInfo(issuer_key_of(certificate), key_of(certificate), until_ns)


def key_of(signed: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The name of the key that a certificate, or a request for one, is for: the SHA-256 of its public half, in
    hexadecimal."""
    public = signed.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()


def issuer_key_of(certificate: x509.Certificate) -> str:
    """The authority key identifier of a certificate, in hexadecimal; empty where it has none (RFC 5280 4.2.1.1)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return (found or b"").hex()


@functools.lru_cache(maxsize=64)
def root_key_of(root_ca_pem: str) -> str:
    """The key identifier of a root, which those that it signed name as their authority's; in hexadecimal."""
    root = _parse(root_ca_pem)
    return root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()


def new_key_and_csr(common_name: str) -> tuple[str, str]:
    """A fresh P-256 key and a signing request for it, both PEM."""
    key_pem = new_key()
    return key_pem, csr_for(key_pem, common_name)


def new_key() -> str:
    """A fresh P-256 key, PEM."""
    return key_to_pem(ec.generate_private_key(ec.SECP256R1()))


def csr_for(key_pem: str, common_name: str) -> str:
    """A signing request for a key, PEM. Raises InvalidArgument for what is no key of ours."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(load_key(key_pem), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def load_key(key_pem: str) -> ec.EllipticCurvePrivateKey:
    """Raises InvalidArgument for what is no key of ours."""
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"the private key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument("the private key is none of ours", hint="a P-256 key is wanted")
    return key


def signed_for_restore(identity: Identity, csr_pem: str) -> bytes:
    """What shows a manager that a signing request comes from the holder of a certificate that ran out."""
    key = load_key(identity.key_pem)
    return key.sign(_RESTORE + csr_pem.encode(), ec.ECDSA(hashes.SHA256()))


def check_restore(
    certificate_pem: str, roots: Sequence[str], csr_pem: str, signature: bytes
) -> tuple[Peer, CertificateInfo]:
    """Whose certificate it is, and what else it says. Raises InvalidArgument unless one of `roots` signed it, and its
    key `csr_pem`."""
    try:
        leaf = x509.load_pem_x509_certificate(certificate_pem.encode())
        issuer = next((root for root in roots if root_key_of(root) == issuer_key_of(leaf)), roots[0])
        leaf.verify_directly_issued_by(_parse(issuer))
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidArgument("the old certificate's key is none of ours")
        key.verify(signature, _RESTORE + csr_pem.encode(), ec.ECDSA(hashes.SHA256()))
        return _peer_in(leaf), info_of(certificate_pem)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise InvalidArgument(
            "the old certificate is not of this cluster, or the caller does not hold its key",
            hint="leave the cluster there and join again with a token",
        ) from error


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Unencrypted PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def channel_credentials(identity: Identity | None, root_ca_pem: str = "") -> grpc.ChannelCredentials:
    """What a client shows and trusts. Without an identity it shows nothing and trusts `root_ca_pem` alone."""
    if identity is None:
        return grpc.ssl_channel_credentials(root_certificates=root_ca_pem.encode())
    return grpc.ssl_channel_credentials(
        root_certificates=(root_ca_pem or identity.root_ca_pem).encode(),
        private_key=identity.key_pem.encode(),
        certificate_chain=identity.certificate_pem.encode(),
    )


def server_credentials(load: Callable[[], Identity], *, require_client: bool) -> grpc.ServerCredentials:
    """What a server shows; `load` is asked at every handshake, so a renewed certificate is live at once."""

    def configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.key_pem.encode(), identity.certificate_pem.encode())],
            root_certificates=identity.root_ca_pem.encode() if require_client else None,
        )

    shown = load()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = load()
        if newest == shown:
            return None
        shown = newest
        return configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown),
        fetch,  # type: ignore[arg-type]  # gRPC reads None as "no change"; its stub does not know
        require_client_authentication=require_client,
    )


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer | None:
    """The member that calls, or None for a call over a unix socket, which only local root can open.

    Raises InvalidArgument for a certificate that is no node's.
    """
    presented = _presented(context)
    return None if presented is None else _peer_in(presented)


def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer | UserPeer | None:
    """As `peer_of`, but users are welcome too."""
    presented = _presented(context)
    if presented is None:
        return None
    return _user_in(presented) if _only(presented, NameOID.ORGANIZATIONAL_UNIT_NAME) == USER else _peer_in(presented)


def _presented(context: grpc.aio.ServicerContext[Any, Any]) -> x509.Certificate | None:
    presented = list(context.auth_context().get("x509_pem_cert", ()))
    return _parse(presented[0].decode()) if presented else None


@functools.lru_cache(maxsize=4096)
def _parse(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def shown_by(context: grpc.aio.ServicerContext[Any, Any]) -> CertificateInfo | None:
    """What the certificate of a caller says beside its name; None where none was shown."""
    presented = _presented(context)
    return None if presented is None else _info_in(presented)


@functools.lru_cache(maxsize=4096)
def _peer_in(certificate: x509.Certificate) -> Peer:
    role, name = _only(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME), _only(certificate, NameOID.COMMON_NAME)
    if role not in ("manager", "worker"):
        raise InvalidArgument(f"certificate of {name} has the unknown role {role}")
    return Peer(name, Role[role.upper()], _only(certificate, NameOID.ORGANIZATION_NAME))


@functools.lru_cache(maxsize=4096)
def _user_in(certificate: x509.Certificate) -> UserPeer:
    name, cluster_id = _only(certificate, NameOID.COMMON_NAME), _only(certificate, NameOID.ORGANIZATION_NAME)
    return UserPeer(name, cluster_id, key_of(certificate))


def _only(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    if len(found) != 1:
        raise InvalidArgument(f"certificate {certificate.subject.rfc4514_string()} is not one of a cluster's")
    return str(found[0].value)
