"""Caches of builds in folders of this host: `--cache-to` and `--cache-from`.

    cache.json          what steps came to, by their keys
    blobs/sha256/       the layers that they made

A folder is whole at any moment: layers come first, the list last and at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cli.build.output import fields_of
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unsupported
from shoal.files import read_optional, write_atomic

_LIST = "cache.json"


class Target(NamedTuple):
    """Where a build's cache goes; `mode` is min (what the image has) or max (all steps)."""

    folder: Path
    mode: str


def target(texts: Iterable[str]) -> Target | None:
    """`type=local,dest=FOLDER[,mode=max]`."""
    wanted = [*texts]
    if len(wanted) > 1:
        raise Unsupported("several --cache-to are not supported", hint="build once for each; the steps are kept")
    if not wanted:
        return None
    found = _local(wanted[0], ("type", "dest", "mode"), "cache-to")
    mode = found.get("mode", "min")
    if not found.get("dest"):
        raise InvalidArgument("--cache-to has no dest", hint="write type=local,dest=FOLDER")
    if mode not in ("min", "max"):
        raise InvalidArgument(f"invalid mode {mode!r} of --cache-to", hint="use min or max")
    return Target(Path(found["dest"]), mode)


def sources(texts: Iterable[str]) -> list[Path]:
    """`type=local,src=FOLDER` of each; a folder without a cache has nothing to give."""
    folders = []
    for text in texts:
        found = _local(text, ("type", "src"), "cache-from")
        if not found.get("src"):
            raise InvalidArgument("--cache-from has no src", hint="write type=local,src=FOLDER")
        folders.append(Path(found["src"]))
    return folders


def _local(text: str, known: tuple[str, ...], flag: str) -> dict[str, str]:
    if "=" not in text:
        raise Unsupported(f"--{flag} {text} is not supported", hint="write type=local and a folder")
    kind = next((part.partition("=")[2] for part in text.split(",") if part.startswith("type=")), "")
    if kind != "local":
        raise Unsupported(f"--{flag} type={kind} is not supported yet", hint="use type=local and a folder")
    return fields_of(text, known, flag)


class Caches:
    """Those that a build looks into, and the one that it fills."""

    def __init__(self, given: list[Path], kept: Target | None) -> None:
        self._given = given
        self._kept = kept
        self._list = b""
        self._writing: BinaryIO | None = None

    def lists(self) -> list[bytes]:
        found = (read_optional(folder / _LIST) for folder in self._given)
        return [each for each in found if each is not None]

    @property
    def mode(self) -> str:
        return self._kept.mode if self._kept is not None else ""

    def held(self) -> list[bytes]:
        """Digests of the layers that are in the folder to fill."""
        if self._kept is None:
            return []
        folder = blobs(self._kept.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [bytes.fromhex(each.name) for each in os.scandir(folder) if len(each.name) == 64]
        except OSError as error:
            raise ShoalError(f"cannot keep a cache in {folder}: {error.strerror}") from error

    def open(self, digest: bytes) -> BinaryIO:
        """A layer to read from. Raises NotFound."""
        for folder in self._given:
            try:
                return (blobs(folder) / digest.hex()).open("rb")
            except FileNotFoundError:
                continue
        raise NotFound(f"the layer {digest.hex()[:12]} is gone from the cache")

    def take_list(self, data: bytes) -> None:
        """What `finish` will write."""
        self._list = data

    def take(self, digest: bytes, data: bytes, *, last: bool) -> None:
        """The next piece of a layer."""
        assert self._kept is not None
        path = blobs(self._kept.folder) / digest.hex()
        if self._writing is None:
            self._writing = path.with_name(f"{path.name}.partial").open("wb")
        self._writing.write(data)
        if last:
            self._writing.close()
            self._writing = None
            path.with_name(f"{path.name}.partial").rename(path)

    def finish(self) -> None:
        """The build has gone well."""
        if self._kept is not None:
            write_atomic(self._kept.folder / _LIST, self._list)


def blobs(folder: Path) -> Path:
    return folder / "blobs" / "sha256"
