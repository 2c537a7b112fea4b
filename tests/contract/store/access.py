"""Ways into an etcd: plain, with certificates, with a password."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import trustme

from manager.store.etcd.settings import EtcdSettings
from tests import etcd
from tests.etcd import Member


@contextlib.contextmanager
def with_certificates(folder: Path) -> Iterator[EtcdSettings]:
    """One that lets in who shows a certificate of its CA."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = authority.issue_cert("127.0.0.1", "localhost")
    server.private_key_pem.write_to_path(str(folder / "key.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    client = authority.issue_cert("client.test")
    options = ["--cert-file", f"{folder}/cert.pem", "--key-file", f"{folder}/key.pem"]
    options += ["--trusted-ca-file", f"{folder}/ca.pem", "--client-cert-auth"]
    with etcd.running(folder, options=options, tls=True) as (member,):
        yield EtcdSettings(
            (member.client,),
            ca_pem=authority.cert_pem.bytes().decode(),
            certificate_pem=client.cert_chain_pems[0].bytes().decode(),
            key_pem=client.private_key_pem.bytes().decode(),
        )


@contextlib.contextmanager
def with_password(folder: Path) -> Iterator[tuple[Member, EtcdSettings]]:
    """One with a user who may do all below /test-, and nothing else."""
    with etcd.running(folder, options=["--bcrypt-cost", "4"]) as (member,):
        for words in (
            "user add root:secret",
            "user grant-role root root",
            "role add shoal",
            "role grant-permission shoal readwrite /test- --prefix",
            "user add shoal:hush",
            "user grant-role shoal shoal",
            "auth enable",
        ):
            subprocess.run(
                ["etcdctl", "--endpoints", member.client, *words.split()], check=True, capture_output=True, timeout=30
            )
        yield member, EtcdSettings((member.client,), user="shoal", password="hush")
