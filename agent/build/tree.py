"""The files of a context, and which of them an instruction means. Pure.

Patterns are Go's filepath.Match: `*` and `?` stop at a slash, `[a-z]`, and the backslash escapes. Paths are relative,
with slashes between and none around; the context itself is "".
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from agent.build.naming import called
from shoal import pattern as patterns
from shoal.errors import NotFound
from shoal.pattern import Matcher

_MAX_LINKS = 40


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`mode` as stat(2) has it; `digest` of a file, `link` of a symlink."""

    path: str
    mode: int
    size: int = 0
    mtime_ns: int = 0
    digest: str = ""
    link: str = ""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


ROOT = Entry("", stat.S_IFDIR | 0o755)


class Source(msgspec.Struct, frozen=True):
    """What one source of a COPY came to: a file, or a folder with all in it. Paths of `entries` are what they are
    called at the destination: below a folder, or the name of the file alone."""

    folder: bool
    entries: tuple[Entry, ...]


class Tree:
    """`entries` in any order; folders in between that nobody names are there."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries: dict[str, Entry] = {"": ROOT}
        self._children: dict[str, list[str]] = {"": []}
        for each in sorted(entries, key=lambda each: each.path):
            self._add(each)

    def _add(self, entry: Entry) -> None:
        parent = posixpath.dirname(entry.path)
        if parent not in self._entries:
            self._add(Entry(parent, stat.S_IFDIR | 0o755))
        if entry.path not in self._entries:
            self._children[parent].append(entry.path)
        self._entries[entry.path] = entry
        if entry.is_folder:
            self._children.setdefault(entry.path, [])

    def digests(self) -> set[str]:
        return {each.digest for each in self._entries.values() if each.digest}

    def get(self, path: str) -> Entry | None:
        return self._entries.get(self._resolved(path))

    def sources(self, wanted: str, *, exclude: Sequence[str] = (), parents: bool = False) -> list[Source]:
        """What a source of COPY means; nothing leads out of the context. Raises NotFound for nothing."""
        clean = cleaned(wanted)
        paths = self._matching(clean)
        if not paths:
            raise NotFound(f'"/{clean}": not found in the build context, or excluded by .dockerignore')
        hidden = Matcher(exclude)
        found = [self._source(path, hidden, name=called(path, wanted, parents=parents)) for path in paths]
        return [each for each in found if each.entries or each.folder]

    def below(self, path: str) -> Iterator[Entry]:
        """All in a folder, in order, without it."""
        waiting = list(reversed(self._children.get(path, ())))
        while waiting:
            here = waiting.pop()
            yield self._entries[here]
            waiting += reversed(self._children.get(here, ()))

    def _source(self, path: str, hidden: Matcher, *, name: str | None) -> Source:
        """`name`: under which path, where it keeps its folders. What is `hidden` is so by its path there."""
        real = self._resolved(path)
        entry = self._entries[real]
        if not entry.is_folder:
            under = posixpath.basename(path) if name is None else name
            kept = (msgspec.structs.replace(entry, path=under),)
            return Source(name is not None, () if hidden.matches(under) else kept)
        top = [msgspec.structs.replace(entry, path=name)] if name else []
        prefix = f"{name}/" if name else ""
        cut = len(real) + 1 if real else 0
        renamed = (msgspec.structs.replace(each, path=prefix + each.path[cut:]) for each in self.below(real))
        return Source(True, (*top, *(each for each in renamed if not hidden.matches(each.path))))

    def _matching(self, clean: str) -> list[str]:
        if not patterns.is_pattern(clean):
            return [clean] if self._resolved(clean) in self._entries else []
        found = [""]
        for part in clean.split("/"):
            found = [each for here in found for each in self._step(here, part)]
        return found

    def _step(self, here: str, part: str) -> list[str]:
        """The children of a folder, through a link too, whose name fits."""
        real = self._resolved(here)
        fits = re.compile(patterns.segment_regex(part), re.DOTALL).fullmatch
        names = (posixpath.basename(each) for each in self._children.get(real, ()))
        return [posixpath.join(here, name) for name in names if fits(name)]

    def _resolved(self, path: str) -> str:
        """Where a path leads through the symlinks of the context; they lead nowhere else."""
        done, todo, links = "", [each for each in reversed(path.split("/")) if each], 0
        while todo:
            name = todo.pop()
            if name == "..":
                done = posixpath.dirname(done)
                continue
            here = posixpath.join(done, name)
            entry = self._entries.get(here)
            if entry is None or not entry.link:
                done = here
                continue
            links += 1
            if links > _MAX_LINKS:
                raise NotFound(f"{path}: too many levels of symbolic links")
            done = "" if entry.link.startswith("/") else done
            todo += [each for each in reversed(entry.link.split("/")) if each not in ("", ".")]
        return done


def cleaned(wanted: str) -> str:
    """A source as a path of the context. As a folder's parent the context has itself, as with docker."""
    return posixpath.normpath("/" + wanted.lstrip("/")).strip("/")


def content_digest(sources: Iterable[Source]) -> str:
    """Of everything that a COPY of them makes: names, kinds, modes, contents, where links lead. Not of times, and not
    of owners, which a COPY gives itself."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(b"folder\n" if source.folder else b"file\n")
        for each in source.entries:
            digest.update(
                msgspec.msgpack.encode((os.fsencode(each.path), each.mode, each.digest, os.fsencode(each.link)))
            )
    return "sha256:" + digest.hexdigest()
