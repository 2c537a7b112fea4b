"""One layer, from its compressed blob to a directory and back: the parent's side of `unpack` and `pack`.

Unpacking decompresses, hashes what comes out (the diff id), and pipes it to a child that is locked inside the target,
so that two processors share the work and nothing of a hostile archive runs in the agent. Blocking work for a worker
thread; setting `stop` ends it soon.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import marshal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

import agent
import shoal
from agent.image import content
from agent.image.compression import decompress
from shoal.errors import InvalidArgument, ShoalError

_CHUNK = 1 << 18
# -I -S: neither the user's environment nor site-packages has a say in what the child imports.
_CHILD = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from agent.image.{} import main; main()"
_ROOMS = ":".join(dict.fromkeys(str(Path(each.__file__ or "").parent.parent) for each in (agent, shoal)))


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
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CHILD.format("unpack"), _ROOMS, marshal.dumps(wanted).hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        bufsize=0,
    )
    assert child.stdin is not None
    try:
        # A child that refuses the archive stops reading; what it says then counts, not the broken pipe.
        with contextlib.suppress(BrokenPipeError):
            for piece in decompress(_chunks(blob, stop=stop, progress=progress)):
                if stop.is_set():
                    raise Cancelled
                digest.update(piece)
                _write(child.stdin, piece)
        said, complaint = child.communicate()
    except BaseException:
        child.kill()
        child.communicate()
        raise
    outcome = _outcome("unpack", child.returncode, _heard, said, complaint)
    return Unpacked("sha256:" + digest.hexdigest(), outcome)


def pack(upper: Path, write: Callable[[bytes], None], *, epoch: int | None, stop: threading.Event) -> int:
    """Give the plain archive of a layer that was made here to `write`; the size of its files. With `epoch`, files that
    are younger are made that old first. Raises as `unpack` does."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _CHILD.format("pack"),
            _ROOMS,
            json.dumps({"upper": str(upper), "epoch": epoch}),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
    )
    assert child.stdout is not None
    try:
        while piece := child.stdout.read(_CHUNK):
            if stop.is_set():
                raise Cancelled
            write(piece)
        _, said = child.communicate()
    except BaseException:
        child.kill()
        child.communicate()
        raise
    return _outcome("pack", child.returncode, json.loads, said, said)


def _heard(said: bytes) -> dict[str, Any]:
    """What `unpack` says. Raises ValueError."""
    if not said.startswith(b"!"):
        return {"size": int(said)}
    number, _, message = said[1:].decode(errors="replace").partition(" ")
    return {"errno": int(number), "error": message}


def _outcome(task: str, code: int, read: Callable[[bytes], dict[str, Any]], said: bytes, complaint: bytes) -> int:
    try:
        answer = read(said)
    except ValueError as error:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise ShoalError(f"the {task}ing process ended with code {code}: {last or 'no message'}") from error
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


def _write(pipe: object, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]  # type: ignore[attr-defined]  # raw: bufsize=0
