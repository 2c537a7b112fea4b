"""Manifests: index → manifest → configuration (`document`). OCI's and docker's (schema 2) alike.

Parsed strictly, since they come from strangers: sizes are bounded, digests checked, and a document that could be
read as two kinds is refused (CVE-2021-41190).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from agent.image.platform import Platform
from agent.registry import media
from shoal import digest as digests
from shoal.errors import InvalidArgument, NotFound, Unsupported

MAX_DOCUMENT_BYTES = 4 << 20
# docker's limit; more would not fit overlayfs' options either.
MAX_LAYERS = 127

OCI_INDEX, OCI_MANIFEST = media.OCI_INDEX, media.OCI_MANIFEST
DOCKER_INDEX, DOCKER_MANIFEST = media.DOCKER_INDEX, media.DOCKER_MANIFEST
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"
_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream")

T = TypeVar("T")


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str | None = None


class Descriptor(msgspec.Struct, rename={"media_type": "mediaType"}, omit_defaults=True):
    """Where content is: its kind, digest and size, and in an index for which platform."""

    media_type: str
    digest: str
    size: int
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None

    def __post_init__(self) -> None:
        digests.check(self.digest)
        if not 0 <= self.size < 1 << 42:
            raise InvalidArgument(f"{self.digest} claims a size of {self.size} bytes")

    @property
    def short(self) -> str:
        """The 12 digits that progress shows."""
        return self.digest.partition(":")[2][:12]


class _Document(
    msgspec.Struct,
    rename={
        "schema_version": "schemaVersion",
        "media_type": "mediaType",
        "fs_layers": "fsLayers",
        "artifact_type": "artifactType",
    },
):
    """An index or a manifest, before it is known which."""

    schema_version: int = 0
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    fs_layers: Any = None


class Index(msgspec.Struct, frozen=True):
    """One image for several platforms."""

    manifests: tuple[Descriptor, ...]


class Manifest(msgspec.Struct, frozen=True):
    """One image for one platform. Layers bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""

    @property
    def is_image(self) -> bool:
        return not self.artifact_type and self.config.media_type in _CONFIGS


def parse(data: bytes, *, media_type: str = "") -> Index | Manifest:
    """The index or manifest in `data`, which its sender called `media_type`.

    Raises InvalidArgument for a damaged one, Unsupported for a kind that holds no image.
    """
    found = parse_any(data, media_type=media_type)
    if isinstance(found, Manifest):
        if not found.is_image:
            kind = found.artifact_type or found.config.media_type
            raise Unsupported(f"{kind[:200]!r} is not an image", hint="it is another kind of artifact")
        check_layers(found.layers)
    return found


def parse_any(data: bytes, *, media_type: str = "") -> Index | Manifest:
    """The same for artifacts of all kinds, whose layers may be anything. Raises InvalidArgument."""
    found = decode(data, _Document, "manifest")
    said = media_type.partition(";")[0].strip()
    if found.media_type and said in media.ACCEPTED and said != found.media_type:
        raise InvalidArgument(f"the manifest calls itself {found.media_type}, its sender called it {said}")
    if found.fs_layers is not None or found.schema_version == 1:
        raise Unsupported("manifests of schema 1 are not supported", hint="push the image again with a newer tool")
    if found.manifests is not None and (found.layers is not None or found.config is not None):
        raise InvalidArgument("the manifest is ambiguous: it is an index and an image at once")
    if found.manifests is not None:
        return Index(tuple(found.manifests))
    if found.config is None or found.layers is None:
        raise InvalidArgument("the manifest is neither an image nor an index")
    return Manifest(found.config, tuple(found.layers), found.artifact_type or "")


def media_type_of(data: bytes) -> str:
    """What a manifest calls itself, if it does."""
    return decode(data, _Document, "manifest").media_type or ""


def check_layers(layers: Sequence[Descriptor]) -> None:
    if len(layers) > MAX_LAYERS:
        raise InvalidArgument(f"max depth exceeded: the image has {len(layers)} layers, {MAX_LAYERS} are possible")
    for layer in layers:
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise Unsupported(f"layer {layer.digest} is not in the registry ({layer.media_type[:200]})")
        if "encrypted" in layer.media_type:
            raise Unsupported(f"layer {layer.digest} is encrypted")


def choose(index: Index, wanted: Platform, *, name: str = "") -> Descriptor:
    """The manifest for a platform: the first whose variant is the wanted one, else the first that runs there.

    Raises NotFound in docker's words.
    """
    fitting = []
    for each in index.manifests:
        platform = each.platform or _Platform()
        here = Platform(platform.os, platform.architecture, platform.variant or "")
        if each.platform is None and len(index.manifests) == 1:
            return each
        if here == wanted:
            return each
        if wanted.accepts(here):
            fitting.append(each)
    if not fitting:
        raise NotFound(f"no matching manifest for {wanted} in the manifest list entries{' of ' * bool(name)}{name}")
    return fitting[0]


def write_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """An OCI manifest, always the same bytes for the same image."""
    return msgspec.json.encode(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}, order="deterministic"
    )


def decode(data: bytes, kind: type[T], what: str) -> T:
    """`data` as a `kind`, which people know as `what`. Raises InvalidArgument."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"the {what} has {len(data)} bytes, {MAX_DOCUMENT_BYTES} are allowed")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the {what} cannot be read: {error}") from error
