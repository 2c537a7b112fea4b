"""Authority: the cluster's root certificate and what it signs; and the seal that keeps its key secret at rest.

The root's private key stands in the Cluster record, sealed (AES-GCM) with 32 bytes that lie in the manager's data
directory alone: a copy of the store without that file signs nothing. What a certificate must say is
`shoal.tls`'s convention; who may have one is decided in `rpc`.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.errors import InvalidArgument, NotFound
from shoal.files import read_optional, write_atomic
from shoal.model.node import Role
from shoal.tls import BACKDATE, MANAGER_NAME, USER, Identity, key_of, key_to_pem, new_key_and_csr, node_name

ROOT_LIFE = datetime.timedelta(days=20 * 365)
MAX_CSR_BYTES = 16 << 10
# What the root's key is sealed as.
CA_KEY = "CA key"
_NONCE_BYTES = 12


class Seal:
    """Encrypts small secrets for the store. `purpose` is bound in, so that no secret opens in another's place."""

    KEY_BYTES = 32

    def __init__(self, key: bytes) -> None:
        # Whoever has it opens everything: it is for the other managers and for sealed backups.
        self.key = key
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "Seal(***)"

    @classmethod
    def create(cls, path: Path) -> Seal:
        """The seal whose key is in `path`, which is made (0600) where there is none."""
        if read_optional(path) is None:
            write_atomic(path, os.urandom(cls.KEY_BYTES))
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Seal:
        """Raises NotFound where there is no key, InvalidArgument where it is damaged."""
        key = read_optional(path)
        if key is None:
            raise NotFound(f"the cluster's seal {path} is missing", hint="restore it from a backup of this manager")
        if len(key) != cls.KEY_BYTES:
            raise InvalidArgument(
                f"the cluster's seal {path} has {len(key)} bytes, not {cls.KEY_BYTES}", hint="restore it from a backup"
            )
        return cls(key)

    def seal(self, secret: bytes, purpose: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, purpose.encode())

    def unseal(self, sealed: bytes, purpose: str) -> bytes:
        """What `seal` was given. Raises InvalidArgument for anything else."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise InvalidArgument(
                f"the sealed {purpose} of the cluster does not open with this manager's seal",
                hint="store and seal must come from the same backup",
            ) from error


class Authority:
    """Signs for one cluster. Times are inputs; serial numbers are chance.

    `chain_pem` follows every certificate that it issues, with every root that a join token may name; `trust_pem` are
    the roots that its nodes are to trust. Both are its own root alone, unless another was or will be.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, root: x509.Certificate, *, chain_pem: str = "", trust_pem: str = ""
    ) -> None:
        self._key = key
        self._root = root
        self.root_ca_pem = _pem(root)
        self.chain_pem = chain_pem or self.root_ca_pem
        self.trust_pem = trust_pem or self.root_ca_pem

    @classmethod
    def create(cls, cluster_id: str, now_ns: int) -> Authority:
        """A new root: P-256, valid for 20 years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "shoal-ca"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            ]
        )
        now = _time(now_ns)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, key_pem: bytes, root_ca_pem: str, *, chain_pem: str = "", trust_pem: str = "") -> Authority:
        """Raises InvalidArgument when one cannot be read, or the two do not belong together."""
        try:
            key = serialization.load_pem_private_key(key_pem, None)
            root = x509.load_pem_x509_certificate(root_ca_pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidArgument(
                f"the cluster's CA key or root certificate is damaged: {error}", hint="restore the store from a backup"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
            raise InvalidArgument("the cluster's CA key does not belong to its root certificate")
        return cls(key, root, chain_pem=chain_pem, trust_pem=trust_pem)

    @property
    def key_pem(self) -> bytes:
        return key_to_pem(self._key).encode()

    def check_root(self, now_ns: int) -> None:
        """Raises InvalidArgument unless its root may be a cluster's: a CA now, self-signed, with a P-256 key."""
        root = self._root
        try:
            root.verify_directly_issued_by(root)
            authority = root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise InvalidArgument(
                f"the certificate is no root of a CA: {error or type(error).__name__}",
                hint="it must be self-signed, with basic constraints and a subject key identifier",
            ) from error
        if not authority or self._key.curve.name != "secp256r1":
            raise InvalidArgument("the certificate is no CA's, or not for a P-256 key")
        if not root.not_valid_before_utc <= _time(now_ns) <= root.not_valid_after_utc:
            raise InvalidArgument(
                f"the certificate is valid until {root.not_valid_after_utc:%Y-%m-%d} only, or not yet"
            )

    def cross_sign(self, other: Authority, now_ns: int) -> str:
        """The other's root, signed by this one: who trusts this one alone can verify what the other signs."""
        root = other._root
        builder = (
            x509.CertificateBuilder()
            .subject_name(root.subject)
            .issuer_name(self._root.subject)
            .public_key(root.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now_ns) - BACKDATE)
            .not_valid_after(min(root.not_valid_after_utc, self._root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return _pem(builder.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        csr_pem: str,
        *,
        node_id: str,
        cluster_id: str,
        role: Role,
        life_ns: int,
        now_ns: int,
        address: str = "",
    ) -> str:
        """A certificate for the public key in `csr_pem` (nothing else of it counts), leaf first, root last.

        Valid from an hour ago until `life_ns` from now. A manager's says its `address` too: members of the store dial
        each other by it. Raises InvalidArgument for what is no signing request.
        """
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(f"spiffe://{cluster_id}/node/{node_id}"),
            x509.DNSName(node_name(node_id)),
        ]
        if role is Role.MANAGER:
            names.append(x509.DNSName(MANAGER_NAME))
            names += _ip_names(address)
        subject = _subject(node_id, cluster_id, role.name.lower())
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._signed(csr_pem, subject, names, usage, life_ns=life_ns, now_ns=now_ns)

    def issue_user(self, csr_pem: str, *, name: str, cluster_id: str, life_ns: int, now_ns: int) -> str:
        """As `issue`, for a user. It serves to call with, not to be called by."""
        names = [x509.UniformResourceIdentifier(f"spiffe://{cluster_id}/user/{name}")]
        subject = _subject(name, cluster_id, USER)
        return self._signed(csr_pem, subject, names, [ExtendedKeyUsageOID.CLIENT_AUTH], life_ns=life_ns, now_ns=now_ns)

    def _signed(
        self,
        csr_pem: str,
        subject: x509.Name,
        names: Sequence[x509.GeneralName],
        usage: Sequence[x509.ObjectIdentifier],
        *,
        life_ns: int,
        now_ns: int,
    ) -> str:
        public = _public_key(csr_pem)
        now = _time(now_ns)
        until = min(now + datetime.timedelta(microseconds=life_ns // 1000), self._root.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._root.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return _pem(builder.sign(self._key, hashes.SHA256())) + self.chain_pem

    def new_identity(
        self, *, node_id: str, cluster_id: str, role: Role, life_ns: int, now_ns: int, address: str = ""
    ) -> Identity:
        """A fresh key with its certificate: for the host that the authority itself is on."""
        key_pem, csr_pem = new_key_and_csr(node_id)
        certificate_pem = self.issue(
            csr_pem, node_id=node_id, cluster_id=cluster_id, role=role, life_ns=life_ns, now_ns=now_ns, address=address
        )
        return Identity(certificate_pem, key_pem, self.trust_pem)


def _subject(common_name: str, cluster_id: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        ]
    )


def key_of_request(csr_pem: str) -> str:
    """The name (`shoal.tls.key_of`) of the key that a signing request is for. Raises InvalidArgument."""
    _public_key(csr_pem)
    return key_of(x509.load_pem_x509_csr(csr_pem.encode()))


@functools.lru_cache(maxsize=4096)  # verifying it is what a join costs most, and several look at it
def _public_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > MAX_CSR_BYTES:
        raise InvalidArgument(f"the signing request has {len(csr_pem)} bytes, {MAX_CSR_BYTES} are allowed")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed = request.is_signature_valid
        public = request.public_key()
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise InvalidArgument(
            "the signing request cannot be read", hint="send PKCS #10 as PEM, made for a P-256 key"
        ) from error
    if not signed:
        raise InvalidArgument("the signing request is not signed by its own key")
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise InvalidArgument("the signing request is not for a P-256 key", hint="make one with a P-256 key")
    return public


def _ip_names(address: str) -> list[x509.GeneralName]:
    try:
        return [x509.IPAddress(ipaddress.ip_address(address))]
    except ValueError:
        return []  # not known yet, or a name, which has to resolve


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _time(now_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now_ns // 1_000_000_000, tz=datetime.UTC)
