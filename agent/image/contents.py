"""Contents: what stands in an archive of images beside their layers, so that all tools find them: docker's own list
and an OCI layout. Pure; `outgoing` writes it, `archive` reads such archives.

Layers go out as they came in, compressed or not, and an OCI manifest too, so that an image has the same digest where
the archive is loaded. Docker's own manifests are said again as OCI's: `umoci` knows no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agent.image import lookup
from agent.image import manifest as manifests
from agent.image.catalog import Catalog, Record
from agent.image.compression import Compression
from agent.image.manifest import Descriptor, Manifest
from shoal import digest as digests
from shoal import reference as references
from shoal.errors import InvalidArgument
from shoal.reference import Reference

# The whole name, as containerd writes it; OCI has a word for a name or for a tag.
CONTAINERD_NAME = "io.containerd.image.name"
OCI_NAME = "org.opencontainers.image.ref.name"
_SUFFIX = {Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd", Compression.NONE: ""}


class Asked(msgspec.Struct, frozen=True):
    """An image that is to be saved, and under which names."""

    record: Record
    names: tuple[Reference, ...] = ()


class Packed(msgspec.Struct, frozen=True):
    """One image as it goes out: its OCI manifest, as bytes and read."""

    data: bytes
    manifest: Manifest
    names: tuple[Reference, ...]

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(manifests.OCI_MANIFEST, digests.of(self.data), len(self.data))


def asked(catalog: Catalog, texts: Sequence[str]) -> list[Asked]:
    """The images that `texts` mean, each once, in their order; a repository without a tag means all of its tags.

    Raises NotFound.
    """
    found: dict[str, Asked] = {}
    for text in texts:
        for record, names in _meant(catalog, text):
            before = found[record.id].names if record.id in found else ()
            found[record.id] = Asked(record, (*before, *(each for each in names if each not in before)))
    return list(found.values())


def _meant(catalog: Catalog, text: str) -> list[tuple[Record, tuple[Reference, ...]]]:
    repository = _repository(text)
    if repository:
        tags = [each for each in map(references.parse, sorted(catalog.names)) if each.name == repository and each.tag]
        if tags:
            return [(catalog.images[catalog.names[each.key].image_id], (each,)) for each in tags]
    found = lookup.find(catalog, text)
    name = references.parse(found.name) if found.name else None
    return [(found.record, (name,) if name is not None and name.tag else ())]


def _repository(text: str) -> str:
    """The name in `text` when that is all there is."""
    try:
        found = references.parse(text)
    except InvalidArgument:
        return ""  # an id
    return "" if found.tag or found.digest else found.name


def packed(
    manifest: Manifest, original: bytes, compressions: Sequence[Compression], names: Iterable[Reference]
) -> Packed:
    """An image, whose manifest is `original`, as it goes out; `compressions` tell what its layers are."""
    kinds = {manifest.config.media_type, *(layer.media_type for layer in manifest.layers)}
    if all(kind.startswith("application/vnd.oci.") for kind in kinds) and _calls_itself_oci(original):
        return Packed(original, manifest, tuple(names))
    config = Descriptor(manifests.OCI_CONFIG, manifest.config.digest, manifest.config.size)
    layers = [
        Descriptor(manifests.OCI_LAYER + _SUFFIX[compression], layer.digest, layer.size)
        for layer, compression in zip(manifest.layers, compressions, strict=True)
    ]
    return Packed(manifests.write_manifest(config, layers), Manifest(config, tuple(layers)), tuple(names))


def _calls_itself_oci(data: bytes) -> bool:
    """OCI's manifests may leave out what they are; docker's never do."""
    return manifests.media_type_of(data) in ("", manifests.OCI_MANIFEST)


def documents(images: Sequence[Packed]) -> dict[str, bytes]:
    """The small files of the archive, by name."""
    entries = [
        {**msgspec.to_builtins(image.descriptor), **({"annotations": notes} if notes else {})}
        for image in images
        for notes in [_annotations(name) for name in image.names] or [{}]
    ]
    index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": entries}
    listed = [
        {
            "Config": path(image.manifest.config.digest),
            "RepoTags": [name.familiar for name in image.names] or None,
            "Layers": [path(layer.digest) for layer in image.manifest.layers],
        }
        for image in images
    ]
    return {
        **{path(image.descriptor.digest): image.data for image in images},
        "index.json": msgspec.json.encode(index),
        "manifest.json": msgspec.json.encode(listed),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }


def blobs(images: Sequence[Packed]) -> list[Descriptor]:
    """Configurations and layers, each once, in the order of their digests."""
    found = {each.digest: each for image in images for each in (image.manifest.config, *image.manifest.layers)}
    return [found[digest] for digest in sorted(found)]


def path(digest: str) -> str:
    """Where content stands in the archive."""
    return f"blobs/{digest.replace(':', '/')}"


def _annotations(name: Reference) -> dict[str, str]:
    return {CONTAINERD_NAME: name.canonical, OCI_NAME: name.tag}
