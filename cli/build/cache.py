"""Caches of builds, `--cache-to` and `--cache-from`: in registries, which the agent speaks to, and in folders of this
host:

    cache.json          what steps came to, by their keys
    blobs/sha256/       the layers that they made

A folder is whole at any moment: layers come first, the list last and at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cli.build.output import fields_of
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unsupported
from shoal.files import read_optional, write_atomic
from shoal.v1 import build_pb2

_LIST = "cache.json"
# Types, with their fields.
_TO = {
    "local": ("dest", "mode"),
    "registry": ("ref", "mode", "compression", "ignore-error", "oci-mediatypes", "image-manifest"),
    "inline": (),
}
_FROM = {"local": ("src",), "registry": ("ref",)}


class Target(NamedTuple):
    """A folder that a build's cache goes to; `mode` is min (what the image has) or max (all steps)."""

    folder: Path
    mode: str


class Targets(NamedTuple):
    """Where a build's cache goes: at most one of each."""

    local: Target | None = None
    registry: build_pb2.CacheExport | None = None
    inline: bool = False


class Sources(NamedTuple):
    """Where it may come from: folders of this host, and what the agent asks registries for."""

    folders: list[Path]
    references: list[str]


def targets(texts: Iterable[str]) -> Targets:
    """`type=local,dest=FOLDER[,mode=max]`, `type=registry,ref=NAME[,mode=max]`, `type=inline`."""
    found: dict[str, Any] = {}
    for text in texts:
        kind, fields = _read(text, _TO, "cache-to")
        if kind in found:
            raise Unsupported(f"several --cache-to type={kind} are not supported", hint="build once for each")
        if kind == "local":
            found[kind] = Target(Path(_needed(fields, "dest", "local", "cache-to")), _mode(fields))
        else:
            found[kind] = _export(fields) if kind == "registry" else True
    return Targets(**found)


def sources(texts: Iterable[str]) -> Sources:
    """`type=local,src=FOLDER`, `type=registry,ref=NAME`, or NAME for short; a folder without a cache has nothing to
    give."""
    found = Sources([], [])
    for text in texts:
        if "=" not in text:
            found.references.append(text)
            continue
        kind, fields = _read(text, _FROM, "cache-from")
        if kind == "local":
            found.folders.append(Path(_needed(fields, "src", "local", "cache-from")))
        else:
            found.references.append(_needed(fields, "ref", "registry", "cache-from"))
    return found


def _export(fields: dict[str, str]) -> build_pb2.CacheExport:
    for name in ("oci-mediatypes", "image-manifest"):
        if not _truth(fields, name, default=True):
            raise Unsupported(f"{name}=false of --cache-to is not supported", hint="caches are OCI manifests of images")
    compression = fields.get("compression", "gzip")
    if compression not in ("gzip", "zstd"):
        raise Unsupported(f"compression={compression} of --cache-to is not supported", hint="use gzip or zstd")
    return build_pb2.CacheExport(
        reference=_needed(fields, "ref", "registry", "cache-to"),
        mode=_mode(fields),
        compression=compression,
        ignore_error=_truth(fields, "ignore-error", default=False),
    )


def _read(text: str, known: Mapping[str, tuple[str, ...]], flag: str) -> tuple[str, dict[str, str]]:
    """The type, and the other fields that it has."""
    kind = next((part.partition("=")[2] for part in text.split(",") if part.startswith("type=")), "")
    if not kind:
        raise InvalidArgument(f"--{flag} {text} has no type", hint=f"there are {', '.join(known)}")
    if kind not in known:
        raise Unsupported(f"--{flag} type={kind} is not supported", hint=f"there are {', '.join(known)}")
    return kind, fields_of(text, ("type", *known[kind]), flag)


def _needed(fields: dict[str, str], name: str, kind: str, flag: str) -> str:
    value = fields.get(name, "")
    if not value:
        raise InvalidArgument(f"--{flag} has no {name}", hint=f"write type={kind},{name}=…")
    return value


def _mode(fields: dict[str, str]) -> str:
    mode = fields.get("mode", "min")
    if mode not in ("min", "max"):
        raise InvalidArgument(f"invalid mode {mode!r} of --cache-to", hint="use min or max")
    return mode


def _truth(fields: dict[str, str], name: str, *, default: bool) -> bool:
    value = fields.get(name, str(default).lower())
    if value not in ("true", "false"):
        raise InvalidArgument(f"invalid {name}={value} of --cache-to", hint="it is true or false")
    return value == "true"


class Caches:
    """Folders that a build looks into, and the one that it fills."""

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
