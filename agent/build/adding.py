"""ADD: archives of the context that are unpacked, what is behind a URL, and git repositories.

What came by a URL is known by what its server says of it (ETag, Last-Modified), so that it is not read again for a step
that was done.
"""

from __future__ import annotations

import asyncio
import email.utils
import posixpath
import re
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import aiohttp
import msgspec
from yarl import URL

from agent.build import cachekey, transfer
from agent.build.flags import CopyFlags
from agent.build.job import Tools
from agent.build.tree import Entry, Source, Tree
from agent.image import tar
from agent.image.compression import ChunkReader, Compression, decompress, detect
from agent.image.layer import Place
from shoal import command
from shoal import digest as digests
from shoal.errors import InvalidArgument, ShoalError, Unavailable
from shoal.ids import new_id

_GIT = re.compile(r"(git://|ssh://|git@).*|https?://[^#]*\.git(#.*)?", re.DOTALL)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
_CHUNK = 1 << 18
_GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}


class Placed(Protocol):
    """Where and how, as a COPY says it."""

    @property
    def target(self) -> str: ...
    @property
    def owner(self) -> tuple[int, int] | None: ...
    @property
    def mode(self) -> int | None: ...


class Added(msgspec.Struct, frozen=True):
    """`digest` stands for the content in a key."""

    digest: str
    work: Callable[[Placed, Place], Awaitable[None]]


class Adder:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def add(self, wanted: str, tree: Tree, given: CopyFlags) -> Added | None:
        """What is not simply copied from the context; None for what is."""
        if _GIT.fullmatch(wanted):
            return await self._git(wanted, keep=given.keep_git_dir)
        if wanted.startswith(("http://", "https://")):
            return await self._url(wanted, given)
        if given.checksum:
            raise InvalidArgument("checksum can't be specified for a file of the build context")
        if given.unpack is False:
            return None
        found = tree.sources(wanted, exclude=given.exclude)
        if len(found) != 1 or found[0].folder or not found[0].entries:
            return None
        entry = found[0].entries[0]
        if not entry.digest or not await asyncio.to_thread(is_archive, self._tools.contexts.path(entry.digest)):
            return None
        return Added(f"unpacked {entry.digest}", lambda how, place: self._unpack(entry.digest, how, place))

    async def _unpack(self, digest: str, how: Placed, place: Place) -> None:
        def work() -> None:
            order = transfer.order_of(place, how.target, owner=how.owner, plain=True)
            with self._tools.contexts.path(digest).open("rb") as file:
                transfer.place_archive(order, decompress(_chunks(file)))

        await asyncio.to_thread(work)

    # ---- URLs ---------------------------------------------------------------------------------------

    async def _url(self, wanted: str, given: CopyFlags) -> Added:
        if given.checksum and not digests.is_digest(given.checksum):
            raise InvalidArgument(f"invalid checksum {given.checksum[:200]!r}", hint="write sha256: and 64 digits")
        name = posixpath.basename(URL(wanted).path)
        entry = await self._download(wanted, given.checksum)
        if given.unpack and await asyncio.to_thread(is_archive, self._tools.contexts.path(entry.digest)):
            return Added(f"unpacked {entry.digest}", lambda how, place: self._unpack(entry.digest, how, place))

        async def work(how: Placed, place: Place) -> None:
            if how.target.endswith("/") and not name:
                raise InvalidArgument(f"cannot determine a filename for {wanted}", hint="name the file at the end")
            mode = 0o600 if how.mode is None else how.mode
            order = transfer.order_of(
                place, how.target, owner=how.owner, mode=mode, files=str(self._tools.contexts.files)
            )
            source = Source(False, (msgspec.structs.replace(entry, path=name or "file"),))
            await asyncio.to_thread(transfer.place_files, order, (source,))

        return Added(f"{entry.digest} {entry.mtime_ns}", work)

    async def _download(self, wanted: str, checksum: str) -> Entry:
        """As a file among those of contexts."""
        contexts, cache = self._tools.contexts, self._tools.cache
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session,
                session.get(wanted) as answer,
            ):
                if answer.status != 200:
                    raise Unavailable(f"ADD {wanted}: the server answers {answer.status} {answer.reason}")
                modified = _modified(answer.headers.get("Last-Modified", ""))
                version = answer.headers.get("ETag", "")
                memo = cachekey.key_of("url", (), wanted, version, modified)
                known = cache.digests.get(memo, "") if version else ""
                if known and not contexts.missing([known]):
                    contexts.also([known])
                    digest = known
                else:
                    digest = await self._store(answer)
                    cache.remember(memo, digest)
        except aiohttp.ClientConnectorDNSError as error:
            raise Unavailable(f"ADD {wanted}: the name {error.host} cannot be resolved ({error.strerror})") from error
        except aiohttp.ClientConnectorError as error:
            reason = (error.strerror or str(error.os_error)).lower()
            raise Unavailable(f"ADD {wanted}: cannot reach {error.host}:{error.port}: {reason}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"ADD {wanted}: {error or 'the server does not answer'}") from error
        if checksum and digest != checksum:
            raise InvalidArgument(f"digest mismatch {digest}: {checksum}, which was expected of {wanted}")
        return Entry("file", stat.S_IFREG | 0o600, contexts.path(digest).stat().st_size, modified, digest)

    async def _store(self, answer: aiohttp.ClientResponse) -> str:
        writer = await asyncio.to_thread(self._tools.contexts.writer, "")
        try:
            async for chunk in answer.content.iter_chunked(_CHUNK):
                await asyncio.to_thread(writer.write, chunk)
            digest = writer.digest()
            self._tools.contexts.also([digest])
            return await asyncio.to_thread(writer.commit)
        finally:
            writer.abort()

    # ---- git ----------------------------------------------------------------------------------------

    async def _git(self, wanted: str, *, keep: bool) -> Added:
        """The commit that a name stands for now is what the step is known by."""
        address, _, fragment = wanted.partition("#")
        name, _, folder = fragment.partition(":")
        if address.startswith("-") or name.startswith("-"):
            raise InvalidArgument(f"invalid git address {wanted[:200]!r}")
        commit = await _commit(address, name)

        async def work(how: Placed, place: Place) -> None:
            clone = place.upper.parent / f"git-{new_id()}"
            try:
                await clone_of(address, commit, clone, keep=keep)
                wish = transfer.wish_of((str(clone),), "", (folder or "/",))
                order = transfer.order_of(place, how.target, several=True, owner=how.owner or (0, 0), mode=how.mode)
                await asyncio.to_thread(transfer.place_gathered, order, wish)
            finally:
                await asyncio.to_thread(shutil.rmtree, clone, ignore_errors=True)

        return Added(f"git {commit} {folder} {keep}", work)


async def _commit(address: str, name: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", name):
        return name
    said = await command.run(["git", "ls-remote", "--", address, name or "HEAD"], environment=_GIT_ENVIRONMENT)
    commit = chosen_commit(said.stdout.decode(), name or "HEAD")
    if not commit:
        raise InvalidArgument(f"{address} has no branch or tag {name!r}")
    return commit


def chosen_commit(listed: str, name: str) -> str:
    """What `git ls-remote` says of a name, a branch before a tag; "" for nothing. It lists whatever ends in the name,
    such as the branch a/main for main, and of an annotated tag also the commit that it is at (`^{}`)."""
    known = {reference: commit for commit, _, reference in (line.partition("\t") for line in listed.splitlines())}
    ways = (name, f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}", f"refs/{name}")
    return next((known[each] for each in ways if each in known), "")


async def clone_of(address: str, commit: str, folder: Path, *, keep: bool) -> None:
    """One commit's files."""
    git = ["git", "-C", str(folder), "-c", "advice.detachedHead=false"]
    folder.mkdir(parents=True)
    await command.run([*git, "init", "--quiet"], environment=_GIT_ENVIRONMENT)
    await command.run([*git, "remote", "add", "origin", address], environment=_GIT_ENVIRONMENT)
    try:
        await command.run([*git, "fetch", "--quiet", "--depth=1", "origin", commit], environment=_GIT_ENVIRONMENT)
    except ShoalError:  # a server that gives out names alone
        await command.run([*git, "fetch", "--quiet", "--tags", "origin"], environment=_GIT_ENVIRONMENT)
    await command.run([*git, "checkout", "--quiet", commit], environment=_GIT_ENVIRONMENT)
    await command.run([*git, "submodule", "--quiet", "update", "--init", "--recursive"], environment=_GIT_ENVIRONMENT)
    if not keep:
        await asyncio.to_thread(shutil.rmtree, folder / ".git")


def is_archive(path: Path) -> bool:
    """Whether the file begins as a tar does, compressed or not."""
    with path.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        if detect(head) == Compression.NONE and len(head) < 6:
            return False
        try:
            return next(iter(tar.Reader(ChunkReader(decompress(_chunks(file))).read)), None) is not None
        except (tar.CorruptArchive, InvalidArgument):
            return False


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


def _modified(text: str) -> int:
    """A Last-Modified as nanoseconds since the epoch; 0 for none."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp()) * 10**9
    except (TypeError, ValueError):
        return 0
