"""The two keys of a virtual machine: whoever may log in has one, and the machine shows the other, so that it is known
before it has said a word."""

from __future__ import annotations

import base64

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from machine.transport.hostkey import fingerprint


class Key(msgspec.Struct, frozen=True):
    """As OpenSSH writes them in files."""

    private: str
    public: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(base64.b64decode(self.public.split()[1]))


def make() -> Key:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return Key(private.decode(), key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())
