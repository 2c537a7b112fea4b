"""`cp`: files and folders between a container and this machine, by docker's rules of where they end up.

The rules (`landing`) are pure: from what the source and the destination are to the folder that is written to and the
name that things get in it.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, NamedTuple

from cli.archive import chunks, plain
from cli.client import Client
from cli.command import Flags, argument, command, switch
from cli.container.extraction import extract
from cli.output import words
from cli.output.screen import write_stdout
from shoal.errors import NotFound, ShoalError
from shoal.tarball import END, Packer
from shoal.v1 import engine_pb2


class Place(NamedTuple):
    """One end of a copy: `container` is empty for this machine, `path` as it was typed."""

    container: str
    path: str


class Found(NamedTuple):
    """What is at a destination; `path` has links followed."""

    path: str
    exists: bool = False
    folder: bool = False


class Landing(NamedTuple):
    """Where a source ends up: in `folder`, as `name`; "." means that its content goes there."""

    folder: str
    name: str


class CopyFlags(Flags):
    """How to copy."""

    archive: Annotated[bool, switch("-a", "--archive", help="Archive mode (copy all uid/gid information)")] = False
    follow_link: Annotated[bool, switch("-L", "--follow-link", help="Always follow symbol link in SRC_PATH")] = False
    quiet: Annotated[bool, switch("-q", "--quiet", help="Suppress progress output during copy")] = False


@command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n        shoal cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    examples=["shoal cp web:/etc/hosts .", "shoal cp ./site/. web:/srv/www", "shoal cp web:/var/log - | tar t"],
)
async def copy(
    client: Client,
    flags: CopyFlags,
    source: Annotated[str, argument()],
    destination: Annotated[str, argument()],
) -> None:
    """Copy files/folders between a container and the local filesystem"""
    from_, to = place(source), place(destination)
    if from_.container and to.container:
        raise ShoalError("copying between containers is not supported", hint="copy to this machine first")
    if not from_.container and not to.container:
        raise ShoalError("must specify at least one container source")
    if not from_.path or not to.path:
        raise ShoalError(f"the path of '{source if not from_.path else destination}' is empty")
    size_bytes = await (_out(client, flags, from_, to.path) if from_.container else _in(client, flags, from_.path, to))
    if not flags.quiet and "-" not in (source, destination) and sys.stdout.isatty():
        print(f"Successfully copied {words.decimal_size(size_bytes)} to {destination}", file=sys.stderr)


def place(text: str) -> Place:
    """`CONTAINER:PATH`, or a path of this machine: one that begins with a dot or a slash, or has no colon."""
    container, colon, path = text.partition(":")
    if not colon or not container or text.startswith((".", "/")):
        return Place("", text)
    return Place(container, path)


def landing(name: str, *, folder: bool, to: Found, asserts_folder: bool) -> Landing:
    """Docker's rules for a source called `name` ("." for a folder's content), a folder or not. `asserts_folder`: the
    destination was written with a slash at its end. Raises ShoalError."""
    if to.exists and to.folder:
        return Landing(to.path, name)
    if to.exists and asserts_folder:
        raise ShoalError(f"{to.path} is not a directory")
    if to.exists and folder:
        raise ShoalError("cannot copy directory", hint=f"{to.path} is a file")
    if not to.exists and not folder and asserts_folder:
        raise ShoalError("no such directory", hint=f"make {to.path} first, or write it without a slash at its end")
    parent, base = posixpath.split(to.path.rstrip("/"))
    return Landing(parent or ("/" if to.path.startswith("/") else "."), base)


def base_name(path: str) -> str:
    """What a source is called: "." when its content is meant."""
    return "." if path == "." or path.endswith("/.") else posixpath.basename(posixpath.normpath(path))


def asserts_folder(path: str) -> bool:
    return path.endswith(("/", "/.")) or path == "."


# From a container


async def _out(client: Client, flags: CopyFlags, source: Place, destination: str) -> int:
    path = _rooted(source.path)
    about = await client.containers.StatPath(engine_pb2.StatPathRequest(container=source.container, path=path))
    name, folder = base_name(path) or ".", stat.S_ISDIR(about.mode)
    if about.link_target and flags.follow_link:
        path = about.link_target
        target = await client.containers.StatPath(engine_pb2.StatPathRequest(container=source.container, path=path))
        folder = stat.S_ISDIR(target.mode)
    if asserts_folder(path) and not folder:
        raise ShoalError(f"{source.container}:{source.path} is not a directory")
    if destination == "-":
        async for chunk in _read(client, source.container, path, name):
            write_stdout(chunk)
        return 0
    end = landing(name, folder=folder, to=_local(destination), asserts_folder=asserts_folder(destination))
    return await extract(_read(client, source.container, path, end.name), end.folder, keep_owner=flags.archive)


async def _read(client: Client, container: str, path: str, name: str) -> AsyncIterator[bytes]:
    request = engine_pb2.ReadArchiveRequest(container=container, path=path, name=name)
    async for response in client.containers.ReadArchive(request):
        yield response.chunk


def _local(path: str) -> Found:
    """Raises ShoalError when even the folder that it would be in is not there."""
    real = os.path.realpath(path)
    if os.path.lexists(real):
        return Found(real, exists=True, folder=os.path.isdir(real))  # noqa: PTH112 - strings all around
    parent = os.path.dirname(real)  # noqa: PTH120 - likewise
    if not os.path.isdir(parent):  # noqa: PTH112 - likewise
        raise ShoalError(f'invalid output path: directory "{parent}" does not exist')
    return Found(real)


# To a container


async def _in(client: Client, flags: CopyFlags, source: str, destination: Place) -> int:
    to = await _there(client, destination.container, _rooted(destination.path))
    if source == "-":
        if not to.folder:
            raise ShoalError(f'destination "{destination.container}:{destination.path}" must be a directory')
        await _write(client, destination.container, to.path, plain(chunks(sys.stdin.buffer)), keep_owner=True)
        return 0
    path = os.path.realpath(source) if flags.follow_link or asserts_folder(source) else os.path.abspath(source)  # noqa: PTH100
    if not os.path.lexists(path):
        raise NotFound(f"lstat {source}: no such file or directory")
    folder = os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 - strings all around
    if asserts_folder(source) and not folder:
        raise ShoalError(f"{source} is not a directory")
    name = base_name(source) if base_name(source) == "." else os.path.basename(os.path.abspath(source))  # noqa: PTH100, PTH119
    end = landing(name, folder=folder, to=to, asserts_folder=asserts_folder(destination.path))
    counted = _Counted(Packer().tree(path, end.name))
    await _write(client, destination.container, end.folder, counted.pieces(), keep_owner=flags.archive)
    return counted.size_bytes


class _Counted:
    """The pieces of a tar, and how many bytes they were."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.size_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.size_bytes += len(piece)
            yield piece
        yield END


async def _there(client: Client, container: str, path: str) -> Found:
    try:
        about = await client.containers.StatPath(engine_pb2.StatPathRequest(container=container, path=path))
        if about.link_target:
            path = about.link_target
            about = await client.containers.StatPath(engine_pb2.StatPathRequest(container=container, path=path))
    except NotFound as error:
        if error.message.startswith("No such container"):
            raise
        return Found(path)
    return Found(path, exists=True, folder=stat.S_ISDIR(about.mode))


async def _write(
    client: Client, container: str, folder: str, pieces: AsyncIterator[bytes], *, keep_owner: bool
) -> None:
    async def requests() -> AsyncIterator[engine_pb2.WriteArchiveRequest]:
        opening = engine_pb2.WriteArchiveOpen(container=container, path=folder, keep_owner=keep_owner)
        yield engine_pb2.WriteArchiveRequest(open=opening)
        async for piece in pieces:
            yield engine_pb2.WriteArchiveRequest(chunk=piece)

    await client.containers.WriteArchive(requests())


def _rooted(path: str) -> str:
    """Paths in a container are seen from its root."""
    return path if path.startswith("/") else f"/{path}"
