"""Passphrase: the cluster's seal, encrypted so that a backup can carry it: scrypt makes the key (RFC 7914), AES-GCM
encrypts. Both functions take a third of a second on purpose and belong into a thread."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from shoal.backup import SealedKey
from shoal.errors import InvalidArgument

MIN_LENGTH = 12
# 64 MiB and about 0.2 s for each guess.
_LOG2_N, _R, _P = 16, 8, 1
# A file may ask for up to 1 GiB, not for all of the host's memory.
_MOST = (20, 8, 16)
_NONCE_BYTES = 12
_PURPOSE = b"shoal backup seal"


def check(passphrase: str) -> None:
    """Raises InvalidArgument for one that is too short to protect anything."""
    if len(passphrase) < MIN_LENGTH:
        raise InvalidArgument(
            f"the passphrase has {len(passphrase)} characters", hint=f"{MIN_LENGTH} are needed at least"
        )


def locked_with(passphrase: str, key: bytes) -> SealedKey:
    """`key`, as only who knows `passphrase` can read it."""
    salt, nonce = os.urandom(16), os.urandom(_NONCE_BYTES)
    cipher = AESGCM(_stretched(passphrase, salt, _LOG2_N, _R, _P))
    return SealedKey(salt, _LOG2_N, _R, _P, nonce + cipher.encrypt(nonce, key, _PURPOSE))


def opened_with(passphrase: str, sealed: SealedKey) -> bytes:
    """The key. Raises InvalidArgument for a wrong passphrase."""
    asked = (sealed.log2_n, sealed.r, sealed.p)
    if any(not 0 < each <= most for each, most in zip(asked, _MOST, strict=True)):
        raise InvalidArgument(f"the backup's seal asks for scrypt with {asked}, which is above {_MOST}")
    cipher = AESGCM(_stretched(passphrase, sealed.salt, *asked))
    try:
        return cipher.decrypt(sealed.sealed[:_NONCE_BYTES], sealed.sealed[_NONCE_BYTES:], _PURPOSE)
    except (InvalidTag, ValueError) as error:
        raise InvalidArgument("the passphrase does not open the backup's seal") from error


def _stretched(passphrase: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p).derive(passphrase.encode())
