"""The authority: what its certificates say, what it refuses to sign, and that sealed things open here alone."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from manager.ca.authority import Authority, Seal
from shoal.errors import InvalidArgument, NotFound
from shoal.model.node import Role
from shoal.tls import Identity, Peer, new_key_and_csr

NOW_NS = 1_800_000_000 * 10**9
DAY_NS = 24 * 3600 * 10**9


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("c1", NOW_NS)


def issue(authority: Authority, csr_pem: str, role: Role = Role.WORKER) -> str:
    return authority.issue(csr_pem, node_id="n1", cluster_id="c1", role=role, life_ns=DAY_NS, now_ns=NOW_NS)


def test_a_certificate_says_who_in_what_as_what_and_until_when(authority: Authority) -> None:
    identity = authority.new_identity(node_id="n1", cluster_id="c1", role=Role.MANAGER, life_ns=DAY_NS, now_ns=NOW_NS)
    assert identity.peer == Peer("n1", Role.MANAGER, "c1")
    names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1.node.shoal", "manager.shoal"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://c1/node/n1"]
    now = datetime.datetime.fromtimestamp(NOW_NS // 10**9, tz=datetime.UTC)
    assert identity.not_after == now + datetime.timedelta(days=1)
    assert identity.issued_at == now
    identity.leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.root_ca_pem.encode()))


@pytest.mark.parametrize(
    ("role", "address", "said"),
    [
        (Role.MANAGER, "10.0.0.1", ["10.0.0.1"]),
        (Role.MANAGER, "fd00::1", ["fd00::1"]),
        (Role.MANAGER, "host.example", []),
        (Role.MANAGER, "", []),
        (Role.WORKER, "10.0.0.1", []),
    ],
)
def test_a_managers_certificate_says_its_address(
    authority: Authority, role: Role, address: str, said: list[str]
) -> None:
    identity = authority.new_identity(
        node_id="n1", cluster_id="c1", role=role, life_ns=DAY_NS, now_ns=NOW_NS, address=address
    )
    names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == said


def test_a_worker_is_not_called_a_manager(authority: Authority) -> None:
    _, csr_pem = new_key_and_csr("manager.shoal")
    worker = Identity(issue(authority, csr_pem), "", authority.root_ca_pem)
    assert worker.peer == Peer("n1", Role.WORKER, "c1")
    names = worker.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1.node.shoal"]
    assert not worker.leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def rsa_request() -> str:
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def forged_request() -> str:
    """The first bit of its signature is turned."""
    _, csr_pem = new_key_and_csr("n1")
    der = x509.load_pem_x509_csr(csr_pem.encode()).public_bytes(serialization.Encoding.DER)
    request = x509.load_pem_x509_csr(csr_pem.encode())
    at = der.index(request.signature)
    forged = bytearray(der)
    forged[at + 10] ^= 1
    return x509.load_der_x509_csr(bytes(forged)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("csr_pem", "words"),
    [
        ("", "cannot be read"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        ("x" * 20_000, "20000 bytes"),
        (rsa_request(), "not for a P-256 key"),
        (forged_request(), "not signed by its own key"),
    ],
)
def test_what_is_no_signing_request_is_refused(authority: Authority, csr_pem: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        issue(authority, csr_pem)


def test_no_certificate_outlives_the_root(authority: Authority) -> None:
    _, csr_pem = new_key_and_csr("n1")
    for_ever = authority.issue(
        csr_pem, node_id="n1", cluster_id="c1", role=Role.WORKER, life_ns=10**6 * DAY_NS, now_ns=NOW_NS
    )
    root = x509.load_pem_x509_certificate(authority.root_ca_pem.encode())
    assert Identity(for_ever, "", "").not_after == root.not_valid_after_utc


def test_key_and_root_must_belong_together(authority: Authority) -> None:
    again = Authority.load(authority.key_pem, authority.root_ca_pem)
    assert again.key_pem == authority.key_pem
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidArgument, match="does not belong"):
        Authority.load(other, authority.root_ca_pem)


@pytest.mark.parametrize(("key", "root"), [(b"no key", None), (None, "no certificate")])
def test_a_damaged_key_or_root_is_said(authority: Authority, key: bytes | None, root: str | None) -> None:
    with pytest.raises(InvalidArgument, match="is damaged"):
        Authority.load(key or authority.key_pem, root or authority.root_ca_pem)


def test_what_is_sealed_opens_with_this_seal_for_this_purpose_only(tmp_path: Path) -> None:
    seal = Seal.create(tmp_path / "seal.key")
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
    sealed = seal.seal(b"secret", "CA key")
    assert b"secret" not in sealed
    assert Seal.create(tmp_path / "seal.key").unseal(sealed, "CA key") == b"secret"
    for other, purpose, data in (
        (Seal(b"k" * 32), "CA key", sealed),
        (seal, "worker join secret", sealed),
        (seal, "CA key", sealed[:-1]),
        (seal, "CA key", b""),
    ):
        with pytest.raises(InvalidArgument, match="does not open with this manager's seal"):
            other.unseal(data, purpose)


def test_a_seal_that_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"seal\.key is missing"):
        Seal.load(tmp_path / "seal.key")
    (tmp_path / "seal.key").write_bytes(b"short")
    with pytest.raises(InvalidArgument, match="has 5 bytes, not 32"):
        Seal.load(tmp_path / "seal.key")
