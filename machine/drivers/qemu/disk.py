"""Disks as qemu-img makes them: a machine's own holds what differs from a base or an image, which nobody writes to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from machine.drivers.qemu.process import missing
from shoal.errors import InvalidArgument, ShoalError

PROGRAM = "qemu-img"
# Of a machine on our own Debian, which takes a tenth of it.
_DEBIAN_BYTES = 10 << 30


class Ground(msgspec.Struct, frozen=True):
    """What a machine's disk stands on. `base` is the folder of our own Debian, empty for an image."""

    path: str
    format: str
    size_bytes: int
    base: str = ""


class _Info(msgspec.Struct, rename="kebab"):
    format: str
    virtual_size: int
    backing_filename: str = ""


def look(path: Path, *, base: Path | None = None) -> Ground:
    """Raises InvalidArgument for what is no image of a disk, and for one that stands on another: by its name it could
    lead a machine into any file."""
    said = _run("info", "--output=json", str(path))
    try:
        found = msgspec.json.decode(said, type=_Info)
    except msgspec.MsgspecError as error:
        raise ShoalError(f"qemu-img info {path}: {error}: {said[:200]!r}") from error
    if found.backing_filename or b'"data-file"' in said:
        raise InvalidArgument(
            f"image {path} stands on another, {found.backing_filename or 'its data file'}",
            hint="make it whole: qemu-img convert -O qcow2 IMAGE WHOLE",
        )
    return Ground(str(path), found.format, found.virtual_size, str(base or ""))


def make(path: Path, ground: Ground, *, size_bytes: int) -> None:
    """A disk with the content of its ground; `size_bytes` 0 is the usual. Raises InvalidArgument for less."""
    size = size_bytes or (max(_DEBIAN_BYTES, ground.size_bytes) if ground.base else ground.size_bytes)
    if size < ground.size_bytes:
        raise InvalidArgument(f"option disk: {ground.path} has {ground.size_bytes} bytes, and a disk cannot have less")
    _run("create", "-q", "-f", "qcow2", "-F", ground.format, "-b", ground.path, str(path), str(size))


def _run(*arguments: str) -> bytes:
    try:
        done = subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError as error:
        raise missing(PROGRAM) from error
    if done.returncode:
        raise ShoalError(f"{PROGRAM} {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
