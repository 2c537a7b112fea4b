"""Host keys against known_hosts files, as sshd(8) describes them; files and certificates are ssh-keygen's."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from machine.transport.hostcert import check_certificate
from machine.transport.hostkey import KnownHosts, Policy, Shown, fingerprint, forget
from shoal.errors import PermissionDenied


def keygen(*argv: str | Path) -> str:
    return subprocess.run(["ssh-keygen", "-q", *argv], check=True, capture_output=True, text=True).stdout


def make_key(path: Path, kind: str = "ed25519") -> Shown:
    keygen("-t", kind, "-N", "", "-f", path)
    return shown(path.with_suffix(".pub"))


def shown(path: Path) -> Shown:
    kind, blob = path.read_text().split()[:2]
    return Shown(kind, base64.b64decode(blob))


def known(tmp_path: Path, text: str = "") -> KnownHosts:
    users = tmp_path / "users"
    users.write_text(text)
    return KnownHosts(tmp_path / "own", [users])


def line(names: str, key: Shown, marker: str = "") -> str:
    return f"{marker} {names} {key.kind} {base64.b64encode(key.blob).decode()}\n".lstrip()


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    key = make_key(tmp_path / "k")
    assert fingerprint(key.blob) == keygen("-l", "-f", tmp_path / "k.pub").split()[1]


def test_a_new_host_is_refused_strictly_and_accepted_once_where_that_is_allowed(tmp_path: Path) -> None:
    key, other = make_key(tmp_path / "k"), make_key(tmp_path / "o")
    with pytest.raises(PermissionDenied, match="is not known"):
        known(tmp_path).check("n1", key, policy=Policy.STRICT)
    known(tmp_path).check("n1", key, policy=Policy.ACCEPT_NEW)
    known(tmp_path).check("n1", key, policy=Policy.STRICT)
    assert (tmp_path / "users").read_text() == ""
    with pytest.raises(PermissionDenied):
        known(tmp_path).check("n1", other, policy=Policy.ACCEPT_NEW)


def test_a_changed_key_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    old, new = make_key(tmp_path / "k"), make_key(tmp_path / "o")
    with pytest.raises(PermissionDenied) as caught:
        known(tmp_path, line("n1", old)).check("n1", new, policy=Policy.ACCEPT_NEW)
    assert fingerprint(old.blob) in str(caught.value)
    assert fingerprint(new.blob) in str(caught.value)


def test_a_known_host_with_a_key_of_another_kind_has_changed_too(tmp_path: Path) -> None:
    old, new = make_key(tmp_path / "k"), make_key(tmp_path / "o", "ecdsa")
    with pytest.raises(PermissionDenied, match="has changed"):
        known(tmp_path, line("n1", old)).check("n1", new, policy=Policy.ACCEPT_NEW)


def test_hashed_names_patterns_and_negations_are_understood(tmp_path: Path) -> None:
    key = make_key(tmp_path / "k")
    hashed = tmp_path / "hashed"
    hashed.write_text(line("n1,[n2]:2222", key))
    keygen("-H", "-f", hashed)
    assert "[n2]" not in hashed.read_text()
    files = known(tmp_path, hashed.read_text() + line("*.rack,!bad.rack", key))
    for name in ("n1", "[n2]:2222", "n9.rack"):
        files.check(name, key, policy=Policy.STRICT)
    for name in ("n2", "bad.rack"):
        with pytest.raises(PermissionDenied):
            files.check(name, key, policy=Policy.STRICT)


def test_a_revoked_key_is_refused_though_it_is_known(tmp_path: Path) -> None:
    key = make_key(tmp_path / "k")
    with pytest.raises(PermissionDenied, match="revoked"):
        known(tmp_path, line("n1", key) + line("*", key, "@revoked")).check("n1", key, policy=Policy.STRICT)


def test_a_pinned_fingerprint_is_the_only_one_that_is_taken(tmp_path: Path) -> None:
    key, other = make_key(tmp_path / "k"), make_key(tmp_path / "o")
    known(tmp_path).check("n1", key, policy=Policy.STRICT, pinned=fingerprint(key.blob))
    with pytest.raises(PermissionDenied, match="the inventory says"):
        known(tmp_path, line("n1", other)).check("n1", other, policy=Policy.STRICT, pinned=fingerprint(key.blob))


def test_a_pinned_host_is_known_to_openssh_as_well(tmp_path: Path) -> None:
    key = make_key(tmp_path / "k")
    known(tmp_path).check("[n1]:2222", key, policy=Policy.STRICT, pinned=fingerprint(key.blob))
    assert keygen("-F", "[n1]:2222", "-f", tmp_path / "own")


def test_a_host_that_is_forgotten_may_be_another_and_its_neighbours_stay(tmp_path: Path) -> None:
    forget(tmp_path / "own", "n1")
    old, new = make_key(tmp_path / "k"), make_key(tmp_path / "o")
    for name in ("n1", "n2"):
        known(tmp_path).check(name, old, policy=Policy.ACCEPT_NEW)
    forget(tmp_path / "own", "n1")
    known(tmp_path).check("n1", new, policy=Policy.ACCEPT_NEW)
    known(tmp_path).check("n2", old, policy=Policy.STRICT)


def certify(tmp_path: Path, *argv: str) -> bytes:
    keygen("-s", tmp_path / "ca", "-I", "host", *argv, tmp_path / "k.pub")
    return base64.b64decode((tmp_path / "k-cert.pub").read_text().split()[1])


def test_an_authority_vouches_for_the_hosts_in_its_certificates(tmp_path: Path) -> None:
    authority, other, key = (make_key(tmp_path / name) for name in ("ca", "o", "k"))
    certificate = certify(tmp_path, "-h", "-n", "n1")
    presented = key._replace(certificate=certificate)
    files = known(tmp_path, line("n*", authority, "@cert-authority"))
    files.check("n1", presented, policy=Policy.STRICT)
    with pytest.raises(PermissionDenied, match="is for n1"):
        files.check("n2", presented, policy=Policy.STRICT)
    with pytest.raises(PermissionDenied, match="not of an authority"):
        check_certificate("n1", certificate, [other.blob])
    with pytest.raises(PermissionDenied, match="does not hold now"):
        check_certificate("n1", certify(tmp_path, "-h", "-n", "n1", "-V", "+1d:+2d"), [authority.blob])
    with pytest.raises(PermissionDenied, match="none of a host"):
        check_certificate("n1", certify(tmp_path, "-n", "n1"), [authority.blob])
