"""One layer, from its compressed blob to a directory and back: the parent's side of `unpack` and `pack`.

Unpacking decompresses, hashes what comes out (the diff id), and pipes it to a child that is locked inside the target
(of an `unpacker`), so that processors share the work and nothing of a hostile archive runs in the agent. Blocking work
for a worker thread; setting `stop` ends it soon.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from agent.image import child, content
from agent.image.ahead import ahead
from agent.image.compression import decompress
from agent.image.unpacker import Unpacker
from shoal.errors import InvalidArgument, ShoalError

_CHUNK = 1 << 18


class Cancelled(Exception):
    """`stop` was set."""


class Unpacked(msgspec.Struct, frozen=True):
    """`diff_id`: digest of the plain archive; `size_bytes`: of the regular files in it."""

    diff_id: str
    size_bytes: int


class Place(msgspec.Struct, frozen=True):
    """Where to unpack: `upper` is filled, `work` and `mount` are empty directories beside it; `lower` are names in
    the folder `layers`, top first."""

    upper: Path
    work: Path
    mount: Path
    layers: Path
    lower: tuple[str, ...]


def digest_of(blob: BinaryIO, *, stop: threading.Event) -> str:
    """The diff id of a layer that needs no unpacking here."""
    digest = hashlib.sha256()
    for piece in decompress(_chunks(blob, stop=stop, progress=lambda _: None)):
        digest.update(piece)
    return "sha256:" + digest.hexdigest()


def unpack(
    blob: BinaryIO,
    place: Place,
    *,
    unpacker: Unpacker,
    stop: threading.Event,
    progress: Callable[[int], None],
    strict: bool = False,
) -> Unpacked:
    """Unpack `blob`. `progress` hears how many of its bytes are through.

    Raises InvalidArgument for a corrupt or refused archive, Exhausted for a full disk, Cancelled. What `place` holds
    after a failure is the caller's to throw away.
    """
    wanted = {
        "upper": str(place.upper),
        "work": str(place.work),
        "mount": str(place.mount),
        "layers": str(place.layers),
        "lower": place.lower,
        "strict": strict,
    }
    digest = hashlib.sha256()
    unpacking = unpacker.begin(wanted)
    try:
        # A child that refuses the archive stops reading; what it says then counts, not the broken pipe.
        plain = decompress(_chunks(blob, stop=stop, progress=progress))
        with contextlib.suppress(BrokenPipeError), ahead(plain) as pieces:
            for piece in pieces:
                if stop.is_set():
                    raise Cancelled
                digest.update(piece)
                unpacking.write(piece)
        said = unpacking.finish()
    finally:
        unpacking.kill()
    outcome = _outcome("unpack", _heard, said)
    return Unpacked("sha256:" + digest.hexdigest(), outcome)


def pack(upper: Path, write: Callable[[bytes], None], *, epoch: int | None, stop: threading.Event) -> int:
    """Give the plain archive of a layer that was made here to `write`; the size of its files. With `epoch`, files that
    are younger are made that old first. Raises as `unpack` does."""
    packing = subprocess.Popen(
        child.argv("agent.image.pack", json.dumps({"upper": str(upper), "epoch": epoch})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
    )
    assert packing.stdout is not None
    try:
        while piece := packing.stdout.read(_CHUNK):
            if stop.is_set():
                raise Cancelled
            write(piece)
        _, said = packing.communicate()
    except BaseException:
        packing.kill()
        packing.communicate()
        raise
    return _outcome("pack", json.loads, said)


def _heard(said: bytes) -> dict[str, Any]:
    """What `unpack` says. Raises ValueError."""
    if not said.startswith(b"!"):
        return {"size": int(said)}
    number, _, message = said[1:].decode(errors="replace").partition(" ")
    return {"errno": int(number), "error": message}


def _outcome(task: str, read: Callable[[bytes], dict[str, Any]], said: bytes) -> int:
    try:
        answer = read(said)
    except ValueError as error:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise ShoalError(f"the {task}ing process ended early: {last or 'no message'}") from error
    if "error" not in answer:
        return int(answer["size"])
    content.raise_full(answer["errno"], f"cannot {task}")
    raise InvalidArgument(f"cannot {task}: {answer['error']}")


def _chunks(blob: BinaryIO, *, stop: threading.Event, progress: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    while piece := blob.read(_CHUNK):
        if stop.is_set():
            raise Cancelled
        yield piece
        done += len(piece)
        progress(done)
