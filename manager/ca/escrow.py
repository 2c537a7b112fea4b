"""Escrow: the cluster's seal as a backup carries it: locked with a passphrase, with the unlock key, or not at all.

Never in the clear: a backup opens nothing without what its operator was told to keep. A passphrase that was chosen for
all backups is kept nowhere; the seal locked with it stands in the Cluster record, which is where backups by schedule
have it from. With autolock every backup opens with the unlock key that held when it was taken.
"""

from __future__ import annotations

import datetime

import msgspec

from manager.ca import passphrase
from manager.ca.authority import Seal
from manager.ca.lock import UnlockKey, is_wrapped, unlock_key_of, unwrapped, wrapped
from shoal.backup import Header, SealedKey
from shoal.errors import InvalidArgument, PermissionDenied
from shoal.model.cluster import Cluster
from shoal.recovery import Secrets

_BY_SEAL = "the file seal.key of a manager's data directory (/var/lib/shoal/manager) with --seal-key"


def laid(seal: Seal, chosen: str) -> bytes:
    """What the Cluster record keeps of the passphrase that was `chosen`; nothing for an empty one. It takes a third of
    a second and belongs into a thread. Raises InvalidArgument for one that is too short."""
    if not chosen:
        return b""
    passphrase.check(chosen)
    return msgspec.json.encode(passphrase.locked_with(chosen, seal.key))


def carried(header: Header, cluster: Cluster, seal: Seal) -> Header:
    """`header` with the seal, in each way that the cluster has; a way that it has already stays."""
    kept = msgspec.json.decode(cluster.escrow, type=SealedKey) if cluster.escrow else None
    unlock_key = unlock_key_of(cluster, seal)
    return msgspec.structs.replace(
        header,
        seal=header.seal or kept,
        locked_seal=wrapped(seal, unlock_key) if unlock_key is not None else b"",
    )


def opened(header: Header, secrets: Secrets) -> Seal:
    """The seal, from the backup or from what the user gave. It may take a third of a second and belongs into a thread.

    Raises InvalidArgument, with what is missing, for whatever does not open it.
    """
    if secrets.seal:
        return _of_file(secrets)
    if secrets.unlock_key and header.locked_seal:
        try:
            return unwrapped(header.locked_seal, UnlockKey.parse(secrets.unlock_key))
        except PermissionDenied as error:
            raise InvalidArgument(
                "the unlock key does not open the backup's seal",
                hint=f"it takes the one that held when the backup was taken, {_time(header)}",
            ) from error
    if secrets.passphrase and header.seal is not None:
        return Seal(passphrase.opened_with(secrets.passphrase, header.seal))
    ways = [("a passphrase", "it with --passphrase-file")] if header.seal is not None else []
    ways += [("the unlock key", "that with --unlock-key-file")] if header.locked_seal else []
    if not ways:
        raise InvalidArgument("the backup does not hold the cluster's seal", hint=f"give {_BY_SEAL}")
    raise InvalidArgument(
        f"the backup's seal is locked with {' and with '.join(lock for lock, _ in ways)}",
        hint=f"give {', or '.join(way for _, way in ways)}, or {_BY_SEAL}",
    )


def _of_file(secrets: Secrets) -> Seal:
    if not is_wrapped(secrets.seal):
        if len(secrets.seal) != Seal.KEY_BYTES:
            raise InvalidArgument(
                f"the seal has {len(secrets.seal)} bytes, not {Seal.KEY_BYTES}", hint=f"give {_BY_SEAL}"
            )
        return Seal(secrets.seal)
    if not secrets.unlock_key:
        raise InvalidArgument(
            "the seal's file is locked with the cluster's unlock key", hint="give that too, with --unlock-key-file"
        )
    try:
        return unwrapped(secrets.seal, UnlockKey.parse(secrets.unlock_key))
    except PermissionDenied as error:
        raise InvalidArgument(
            "the unlock key does not open the seal's file", hint="it takes the one that held when it was copied"
        ) from error


def _time(header: Header) -> str:
    return datetime.datetime.fromtimestamp(header.taken_at_ns // 10**9, tz=datetime.UTC).isoformat()
