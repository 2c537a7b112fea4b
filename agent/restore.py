"""Restore: a backup that comes in through the API, on the disk and whole before anything is made of it.

`agent/membership.py` says when, `manager/recovery.py` makes a manager's data of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from shoal.backup import examined
from shoal.errors import Exhausted, ShoalError
from shoal.model.access import StoreAccess


class Secrets(msgspec.Struct, frozen=True):
    """What a recovery is told in secret: what opens a backup, the passphrase of the seal in it or the seal; and how the
    store is reached that it makes, or takes the state from. No part of it is kept."""

    passphrase: str = ""
    seal: bytes = b""
    store: StoreAccess = StoreAccess()
    source: StoreAccess = StoreAccess()

    def __repr__(self) -> str:
        return "Secrets(***)"


@contextlib.asynccontextmanager
async def received(chunks: AsyncIterator[bytes], path: Path) -> AsyncIterator[Path]:
    """The file at `path` until the block ends. Raises InvalidArgument or Unsupported for one that is not whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(examined, path, "that was sent")
        yield path
    except OSError as error:
        kind = Exhausted if error.errno in (28, 122) else ShoalError  # ENOSPC, EDQUOT
        raise kind(f"the backup cannot be written to {path}: {error.strerror}") from error
    finally:
        path.unlink(missing_ok=True)
