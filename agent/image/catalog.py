"""The catalog: which images this host has, and by which names. One small file, replaced as a whole.

An image is in the catalog only once all its blobs and layers are on disk; whatever else is on disk is garbage of
something that was interrupted (`gc`). So a crash at any moment leaves either the old catalog or the new one, and
both are true. Values are frozen: a change makes a new catalog.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import msgspec

from shoal.errors import InvalidArgument
from shoal.files import read_optional, write_atomic
from shoal.reference import Reference

_SCHEMA = 1


class Record(msgspec.Struct, frozen=True):
    """One image. `id` is the digest of its configuration; `digest` that of the manifest or index by which it came
    last; `blobs` its documents and layers with their media types; sizes are of unpacked files, bottom first; `parent`
    the image that it was committed on, which may be gone."""

    id: str
    digest: str
    blobs: dict[str, str]
    diff_ids: tuple[str, ...]
    chain_ids: tuple[str, ...]
    layer_sizes: tuple[int, ...]
    kept_at_ns: int
    parent: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(self.layer_sizes)


class Name(msgspec.Struct, frozen=True):
    """What a reference stands for here. `fetched`: the cluster named it so, no user did; a user's name for another
    image is never taken away by a task that needs this one."""

    image_id: str
    digest: str
    fetched: bool = False


class Layer(msgspec.Struct, frozen=True):
    """One layer on top of others, as `chain_id`: its blob, and the size of its unpacked files."""

    diff_id: str
    chain_id: str
    digest: str
    media_type: str
    blob_bytes: int
    size_bytes: int


class Compressed(msgspec.Struct, frozen=True):
    """What a plain layer is on its way out: the blob with this digest and size."""

    digest: str
    size: int


class Catalog(msgspec.Struct, frozen=True):
    """`images` by id; `names` by canonical reference, tagged or by digest (`Reference.key`); `layers` by chain id are
    those that builds may stand on again, whether an image has them or not; `compressed` by "DIGEST KIND" of a plain
    layer's blob: kept as long as that is."""

    schema: int = _SCHEMA
    images: dict[str, Record] = {}
    names: dict[str, Name] = {}
    layers: dict[str, Layer] = {}
    compressed: dict[str, Compressed] = {}

    def names_of(self, image_id: str) -> list[str]:
        """Canonical references of an image, in order."""
        return sorted(key for key, name in self.names.items() if name.image_id == image_id)

    def children(self, image_id: str) -> list[str]:
        """The images that were committed on it."""
        return [record.id for record in self.images.values() if record.parent == image_id]

    def intermediate(self, image_id: str) -> bool:
        """Whether it is there for its children alone: they have it for their parent, and nobody calls it anything."""
        return bool(self.children(image_id)) and not self.names_of(image_id)

    def holder(self, digest: str) -> Record | None:
        """An image that came by this manifest or index."""
        named = (name.image_id for name in self.names.values() if name.digest == digest)
        by_own = (record.id for record in self.images.values() if record.digest == digest)
        found = next(by_own, None) or next(named, None)
        return self.images.get(found) if found else None

    def with_image(self, record: Record) -> Catalog:
        """Add an image; one that is there by another manifest keeps that one's content too. One that is there just so
        stays as it is, so that a build that finds all done writes nothing."""
        known = self.images.get(record.id)
        if known is not None:
            blobs = {**known.blobs, **record.blobs}
            record = msgspec.structs.replace(record, blobs=blobs, parent=record.parent or known.parent)
            if msgspec.structs.replace(record, kept_at_ns=known.kept_at_ns) == known:
                return self
        return msgspec.structs.replace(self, images={**self.images, record.id: record})

    def with_names(self, names: Mapping[str, Name]) -> Catalog:
        """Add or move names."""
        return msgspec.structs.replace(self, names={**self.names, **names})

    def without_names(self, keys: Iterable[str]) -> Catalog:
        gone = set(keys)
        return msgspec.structs.replace(self, names={k: v for k, v in self.names.items() if k not in gone})

    def with_layers(self, layers: Iterable[Layer]) -> Catalog:
        return msgspec.structs.replace(self, layers={**self.layers, **{each.chain_id: each for each in layers}})

    def with_compressed(self, key: str, found: Compressed, *, here: Container[str]) -> Catalog:
        """Remember what a plain layer came out as, and forget it of those that are not `here` any more."""
        kept = {each: old for each, old in self.compressed.items() if each.partition(" ")[0] in here}
        return msgspec.structs.replace(self, compressed={**kept, key: found})

    def without_layers(self, chain_ids: Iterable[str]) -> Catalog:
        gone = set(chain_ids)
        return msgspec.structs.replace(self, layers={k: v for k, v in self.layers.items() if k not in gone})

    def without_image(self, image_id: str) -> Catalog:
        """Drop an image with its names."""
        return msgspec.structs.replace(
            self,
            images={key: record for key, record in self.images.items() if key != image_id},
            names={key: name for key, name in self.names.items() if name.image_id != image_id},
        )


def names_for(reference: Reference, image_id: str, digest: str, *, current: Catalog, fetched: bool) -> dict[str, Name]:
    """The names that an image gets when it comes as `reference` with `digest`: by digest, and by tag where one was
    meant and, when the cluster fetched it, no user has given that tag away."""
    wanted = {reference.at(digest).canonical: Name(image_id, digest, fetched)}
    if not reference.digest:
        key = reference.key
        held = current.names.get(key)
        if not fetched or held is None or held.fetched:
            wanted[key] = Name(image_id, digest, fetched)
    return wanted


def load(path: Path) -> Catalog:
    """The catalog in `path`; an empty one where there is none. Raises InvalidArgument for one that cannot be read."""
    data = read_optional(path)
    if data is None:
        return Catalog()
    try:
        found = msgspec.json.decode(data, type=Catalog)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"the image catalog {path} cannot be read: {error}") from error
    if found.schema != _SCHEMA:
        raise InvalidArgument(
            f"the image catalog {path} has schema {found.schema}, this program knows {_SCHEMA}",
            hint="start the version of shoal that wrote it",
        )
    return found


def save(path: Path, catalog: Catalog) -> None:
    """Replace the file, durably. Raises Exhausted when the disk is full; the old one then stays. Blocks."""
    write_atomic(path, msgspec.json.encode(catalog))
