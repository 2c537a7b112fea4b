"""Small files that must be whole or absent, whatever moment the power goes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from shoal.errors import Exhausted


def write_atomic(path: Path | str, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` with `data`: written beside it, synced, renamed, and the folder synced (rename(2), fsync(2)).

    Without `durable` a power cut may leave the old content, never a torn one after a crash of the process alone.
    Raises Exhausted when the disk is full; the old content then stays.
    """
    beside = _beside(path)
    try:
        descriptor = _written(beside, data, mode)
        try:
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)  # noqa: PTH104 - a hot path
    except OSError as error:
        raise _unwritten(path, beside, error) from error
    if durable:
        _sync_folder(os.path.dirname(path) or ".")  # noqa: PTH120 - as all here


def write_new(path: str, data: bytes, *, mode: int = 0o600) -> int:
    """A file that is not there yet, whole under its name but not on the disk: its descriptor, the caller's to sync and
    to close. One fsync(2) then takes file and name to the disk, as those of ext4, XFS and btrfs do of new files, where
    `write_atomic` needs two that the disk does one after the other. A power cut before leaves no file or an empty one.

    Raises Exhausted when the disk is full; then there is no file.
    """
    beside, descriptor = _beside(path), -1
    try:
        descriptor = _written(beside, data, mode)
        os.rename(beside, path)  # noqa: PTH104 - a hot path
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise _unwritten(path, beside, error) from error
    return descriptor


def _beside(path: Path | str) -> str:
    folder, name = os.path.split(path)
    return f"{folder or '.'}/.{name}.{os.getpid()}.tmp"


def _unwritten(path: Path | str, beside: str, error: OSError) -> OSError | Exhausted:
    """What to raise; nothing of it is left."""
    with contextlib.suppress(OSError):
        os.unlink(beside)  # noqa: PTH108 - a hot path
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return Exhausted(f"cannot write {path}: the disk is full", hint="free some space and try again")
    return error


def _written(path: str, data: bytes, mode: int) -> int:
    """The descriptor of a file that holds `data`, whose folder is made where there is none."""
    descriptor = _make(path, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def overwrite(path: str, data: bytes) -> bool:
    """Put `data`, a page at most, into a file that is not there, is empty or as long: one write, which a crash of the
    process alone does not tear. It spares the disk a new file for each time, which is most of what `write_atomic`
    costs; a power cut may tear it. False, and nothing done, for a file of another length.

    Raises OSError; a file that was not there may be left empty then.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size not in (0, len(data)):
            return False
        if os.write(descriptor, data) < len(data):
            raise Exhausted(f"cannot write {path}: the disk is full", hint="free some space and try again")
        return True
    finally:
        os.close(descriptor)


def _make(path: str, mode: int) -> int:
    """A descriptor of a new file, whose folder is made where there is none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        return os.open(path, flags, mode)


def move(path: Path, target: Path) -> None:
    """`path` is `target` from now on, whatever moment the power goes (rename(2), fsync(2))."""
    path.rename(target)
    _sync_folder(target.parent)


def sweep_unfinished(folder: Path) -> None:
    """Remove what `write_atomic` leaves beside its files when the process is killed within it. Only for who alone
    writes into `folder`."""
    for beside in folder.glob(".*.tmp"):
        beside.unlink(missing_ok=True)


def make_private(path: Path) -> None:
    """A file that only its owner can read, made empty where it is not there: for databases, whose own library would
    leave them readable to all. SQLite gives its journals the mode of the database (sqlite.org/wal.html)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def read_optional(path: Path) -> bytes | None:
    """The content, or None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path | str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
