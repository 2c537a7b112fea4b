"""What `PATH | URL | -` of a build means: a folder to build from, and the text of its Dockerfile.

An archive on stdin or behind a URL, and a git repository, become folders of the moment on this host.
"""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cli.build.context import Context, gather, ignored, name_of
from shoal.errors import InvalidArgument, NotFound, ShoalError
from shoal.pattern import Matcher

STDIN = "-"
_GIT = re.compile(r"(git://|ssh://|git@|github\.com/).*|https?://[^#]*\.git(#.*)?", re.DOTALL)
_URL = re.compile(r"https?://.*", re.DOTALL)
_HEAD = 512
_TIMEOUT_S = 60
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")


class Source(NamedTuple):
    """`remembered`: the name by which the context is known again; empty for one of the moment."""

    context: Context
    dockerfile: bytes
    name: str
    remembered: str = ""


@contextlib.contextmanager
def source(where: str, dockerfile: str) -> Iterator[Source]:
    """Raises NotFound and InvalidArgument in docker's words. Blocks."""
    with contextlib.ExitStack() as stack:
        if where == STDIN and dockerfile == STDIN:
            raise InvalidArgument("invalid argument: can't use stdin for both build context and dockerfile")
        if where == STDIN:
            yield _streamed(sys.stdin.buffer, dockerfile, stack)
        elif _GIT.fullmatch(where):
            yield _local(_cloned(where, _folder(stack)), dockerfile, remembered=False, inside=True)
        elif _URL.fullmatch(where):
            yield _streamed(stack.enter_context(_opened(where)), dockerfile, stack)
        else:
            folder = Path(where)
            if not folder.is_dir():
                raise NotFound(f'unable to prepare context: path "{where}" not found')
            yield _local(folder, dockerfile, remembered=True, inside=False)


def _local(folder: Path, dockerfile: str, *, remembered: bool, inside: bool) -> Source:
    """A Dockerfile's name counts from where the user is; of a repository or an archive, from its top (`inside`)."""
    if dockerfile == STDIN:
        text, path = sys.stdin.buffer.read(), None
    else:
        path = (folder / dockerfile if inside else Path(dockerfile)) if dockerfile else folder / "Dockerfile"
        text = _read(path)
    name = name_of(folder) if remembered else ""
    shown = path.name if path is not None else "Dockerfile"
    return Source(gather(folder, ignored(folder, path), name, now_ns=time.time_ns()), text, shown, name)


def _read(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise NotFound(
            f"failed to read dockerfile: open {path}: {why}", hint="name it with -f; '.' is the context"
        ) from error
    if not text.strip():
        raise InvalidArgument(f"the Dockerfile ({path}) cannot be empty")
    return text


def _streamed(stream: IO[bytes], dockerfile: str, stack: contextlib.ExitStack) -> Source:
    """An archive, or a lone Dockerfile without any context."""
    head = _exactly(stream, _HEAD)
    if not _is_archive(head):
        if dockerfile:
            raise InvalidArgument("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
        return Source(
            gather(_folder(stack), Matcher(()), "", now_ns=time.time_ns()), head + stream.read(), "Dockerfile"
        )
    import tarfile  # these are for archives alone

    from cli.container.extraction import take_apart

    folder = _folder(stack)
    try:
        with tarfile.open(fileobj=_Rejoined(head, stream), mode="r|*") as archive:
            take_apart(archive, str(folder), keep_owner=False)
    except (tarfile.TarError, OSError) as error:
        raise InvalidArgument(f"the build context cannot be unpacked: {error}") from error
    return _local(folder, dockerfile, remembered=False, inside=True)


def _is_archive(head: bytes) -> bool:
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    return data


class _Rejoined(io.RawIOBase):
    """A stream of which the beginning was read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._rest.read(size)


@contextlib.contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    from urllib import error as errors  # a tenth of a start, for a context behind a URL
    from urllib import request

    try:
        with request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            yield answer
    except errors.URLError as error:
        raise ShoalError(f"cannot fetch the build context from {url}: {error.reason}") from error


def _cloned(where: str, folder: Path) -> Path:
    """`ADDRESS#NAME:FOLDER`: the files of one commit."""
    address, _, fragment = where.partition("#")
    name, _, below = fragment.partition(":")
    address = f"https://{address}" if address.startswith("github.com/") else address
    if address.startswith("-") or name.startswith("-"):
        raise InvalidArgument(f"invalid git address {where}")
    git = ["git", "-C", str(folder)]
    for argv in (
        [*git, "init", "--quiet"],
        [*git, "remote", "add", "origin", address],
        [*git, "fetch", "--quiet", "--depth=1", "origin", name or "HEAD"],
        [*git, "checkout", "--quiet", "FETCH_HEAD"],
        [*git, "submodule", "--quiet", "update", "--init", "--recursive"],
    ):
        try:
            done = subprocess.run(argv, capture_output=True, check=False)
        except FileNotFoundError as error:
            raise ShoalError("git is not installed on this host", hint="install it and try again") from error
        if done.returncode == -signal.SIGINT:  # from the terminal, for both of us
            raise KeyboardInterrupt
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise ShoalError(f"unable to prepare context: git of {where}: {said}")
    found = (folder / below).resolve()
    if not found.is_relative_to(folder.resolve()) or not found.is_dir():
        raise NotFound(f"unable to prepare context: {where} has no folder {below}")
    return found


def _folder(stack: contextlib.ExitStack) -> Path:
    import tempfile  # for contexts that are not here yet

    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-build-")))
