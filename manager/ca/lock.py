"""Lock: the seal's key on this manager's disk; with autolock, wrapped by an unlock key that lies on no disk.

The Cluster record is what should be: it holds the unlock key, sealed, or none. Each manager's file follows it, so that
all are locked by the same key; a manager that is killed in between has a file that the key before opens, and follows
when it runs again. A manager that finds its file wrapped is locked: see `manager/api/locked.py`.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
from base64 import b64decode, b64encode
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manager.ca.authority import Seal
from manager.store.mirror import Mirror
from shoal.clock import Clock
from shoal.errors import InvalidArgument, PermissionDenied, ShoalError
from shoal.files import read_optional, write_atomic
from shoal.model.cluster import Cluster

log = logging.getLogger(__name__)

LOOK_S = 1.0
_PREFIX = "SHKEY-1-"
_FORM = re.compile(rf"{_PREFIX}([A-Za-z0-9+/]{{43}})")
_MAGIC = b"SHLOCK1\n"
_NONCE_BYTES = 12
_WRAPPING = b"shoal seal"
_UNLOCK_KEY = "unlock key"
_INVALID = "swarm could not be unlocked: invalid key provided"


class UnlockKey(msgspec.Struct, frozen=True):
    """32 bytes of chance; `text` is the only way to see them."""

    key: bytes

    @classmethod
    def new(cls) -> UnlockKey:
        return cls(os.urandom(32))

    @classmethod
    def parse(cls, text: str) -> UnlockKey:
        """Raises InvalidArgument for what can be no unlock key of any cluster."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise InvalidArgument(f"the unlock key is malformed: it is {_PREFIX} and 43 characters")
        return cls(b64decode(found[1] + "="))

    @property
    def text(self) -> str:
        return _PREFIX + b64encode(self.key).decode().rstrip("=")

    def same(self, other: UnlockKey | None) -> bool:
        return other is not None and hmac.compare_digest(self.key, other.key)

    def __repr__(self) -> str:
        return f"UnlockKey({_PREFIX}***)"


class Lock:
    """The file at `path`. `open` first; then `follow`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # What the file is wrapped with.
        self._with: UnlockKey | None = None

    @property
    def locked(self) -> bool:
        """Whether `open` needs the key."""
        return is_wrapped(read_optional(self._path) or b"")

    def open(self, unlock_key: UnlockKey | None = None) -> Seal:
        """The seal. Raises NotFound where there is no file, PermissionDenied for a wrong key."""
        if not self.locked:
            return Seal.load(self._path)
        if unlock_key is None:
            raise PermissionDenied(_INVALID)
        seal = unwrapped(self._path.read_bytes(), unlock_key)
        self._with = unlock_key
        return seal

    def follow(self, cluster: Cluster, seal: Seal) -> None:
        """Wrap the file as `cluster` says, or not at all. Killed in it, the file before or after is there."""
        wanted = unlock_key_of(cluster, seal)
        if wanted is None and self._with is None:
            return
        if wanted is not None and wanted.same(self._with):
            return
        write_atomic(self._path, seal.key if wanted is None else wrapped(seal, wanted))
        self._with = wanted


async def keep_following(lock: Lock, mirror: Mirror, seal: Seal, clock: Clock) -> None:
    """Whatever any manager does about the unlock key, this one's file follows, for as long as it lives."""
    followed: Cluster | None = None
    while True:
        try:
            if (cluster := mirror.cluster) is not None and cluster is not followed:
                lock.follow(cluster, seal)
                followed = cluster
        except (ShoalError, OSError) as error:
            log.error("the seal cannot be locked as the cluster says, trying again: %s", error)  # a full disk is no bug
        await clock.sleep(LOOK_S)


def unlock_key_of(cluster: Cluster, seal: Seal) -> UnlockKey | None:
    """What opens its managers today; None without autolock."""
    if not cluster.sealed_unlock_key:
        return None
    return UnlockKey(seal.unseal(cluster.sealed_unlock_key, _UNLOCK_KEY))


def relocked(cluster: Cluster, seal: Seal, *, rotate: bool = False) -> Cluster:
    """`cluster` with an unlock key where its spec asks for autolock, a fresh one to `rotate`, and with none else."""
    if not cluster.spec.autolock:
        sealed = b""
    elif rotate or not cluster.sealed_unlock_key:
        sealed = seal.seal(UnlockKey.new().key, _UNLOCK_KEY)
    else:
        return cluster
    return msgspec.structs.replace(cluster, sealed_unlock_key=sealed)


def is_wrapped(content: bytes) -> bool:
    """Whether it is a seal that only the unlock key opens."""
    return content.startswith(_MAGIC)


def wrapped(seal: Seal, unlock_key: UnlockKey) -> bytes:
    """The seal, for who has the key."""
    nonce = os.urandom(_NONCE_BYTES)
    return _MAGIC + nonce + AESGCM(unlock_key.key).encrypt(nonce, seal.key, _WRAPPING)


def unwrapped(content: bytes, unlock_key: UnlockKey) -> Seal:
    """What was wrapped. Raises PermissionDenied for another key, or what was damaged."""
    content = content.removeprefix(_MAGIC)
    nonce, sealed = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
    try:
        return Seal(AESGCM(unlock_key.key).decrypt(nonce, sealed, _WRAPPING))
    except (InvalidTag, ValueError) as error:
        raise PermissionDenied(_INVALID) from error
