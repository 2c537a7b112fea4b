"""Images in files: what `docker save`, podman, skopeo and umoci write, as docker-archive or as an OCI layout.

The archive is read once, as a stream, because its table of contents comes last: every file in it goes into the
content store under its digest (no path of the archive ever reaches the disk), then the table of contents says which
digests make which image, and what nobody named is garbage. `incoming` brings the bytes, `pull` does the rest.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncGenerator, Iterable

import msgspec

from agent.image import manifest as manifests
from agent.image import tar
from agent.image.compression import ChunkReader, Compression, decompress, detect
from agent.image.content import Content
from agent.image.contents import CONTAINERD_NAME, OCI_NAME
from agent.image.manifest import Descriptor
from agent.image.pull import Target
from shoal import reference as references
from shoal.errors import InvalidArgument
from shoal.reference import Reference

_MAX_MEMBERS = 20_000
_MAX_LINKS = 20
_SUFFIX = {Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}


class _Saved(msgspec.Struct, rename="pascal"):
    """One image in docker's manifest.json."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class Members:
    """The files of an archive: where their content is, and where links lead."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._files: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def add_file(self, name: str, digest: str) -> None:
        self._files[name] = digest

    def add_link(self, name: str, target: str) -> None:
        self._links[name] = target

    def __len__(self) -> int:
        return len(self._files) + len(self._links)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def descriptor(self, name: str, media_type: str) -> Descriptor:
        """The member `name`, through links. Raises InvalidArgument."""
        here = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            if here not in self._links:
                break
            here = self._links[here]
        digest = self._files.get(here)
        if digest is None:
            raise InvalidArgument(f"the archive does not hold {name[:200]!r}, which it speaks of")
        return Descriptor(media_type, digest, self._content.size(digest))

    def read(self, name: str) -> bytes:
        digest = self.descriptor(name, "").digest
        return self._content.read(digest, limit_bytes=manifests.MAX_DOCUMENT_BYTES)

    def layer(self, name: str) -> Descriptor:
        """A layer, with the media type that its first bytes tell."""
        found = self.descriptor(name, "")
        with self._content.open(found.digest) as blob:
            suffix = _SUFFIX.get(detect(blob.read(6)), "")
        return Descriptor(manifests.OCI_LAYER + suffix, found.digest, found.size)


class Saved(msgspec.Struct, frozen=True):
    """One image of an archive and what it is called there."""

    target: Target
    names: tuple[Reference, ...]


class Nothing:
    """The BlobSource behind an archive: whatever is asked of it, the archive should have had."""

    async def open(self, digest: str, _offset: int) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        raise InvalidArgument(f"the archive does not hold {digest}, or holds it damaged")


def read(chunks: Iterable[bytes], content: Content) -> list[Saved]:
    """Take an archive in; the images that it holds. Blocks.

    Raises InvalidArgument for what is no archive of images, or a damaged one.
    """
    try:
        members = _members(chunks, content)
    except tar.CorruptArchive as error:
        raise InvalidArgument(f"cannot load the archive: {error}", hint="is it whole, and made by `save`?") from error
    if "oci-layout" in members and "index.json" in members:
        return _oci(members)
    if "manifest.json" in members:
        return _docker(members)
    raise InvalidArgument(
        "the archive holds no image: neither manifest.json nor an OCI layout",
        hint="a root filesystem comes in by `import`",
    )


def _members(chunks: Iterable[bytes], content: Content) -> Members:
    members = Members(content)
    reader = tar.Reader(ChunkReader(decompress(chunks)).read, strict=True)
    for entry in reader:
        name = posixpath.normpath(entry.name.decode(errors="surrogateescape"))
        link = entry.link.decode(errors="surrogateescape")
        if entry.kind == tar.REGULAR and entry.parts is None:
            members.add_file(name, _store(reader, content))
        elif entry.kind == tar.SYMLINK:
            members.add_link(name, posixpath.normpath(posixpath.join(posixpath.dirname(name), link)))
        elif entry.kind == tar.HARDLINK:
            members.add_link(name, posixpath.normpath(link))
        if len(members) > _MAX_MEMBERS:
            raise InvalidArgument(f"the archive has more than {_MAX_MEMBERS} members, no archive of images has")
    return members


def _store(reader: tar.Reader, content: Content) -> str:
    writer = content.writer()
    try:
        for piece in reader.data():
            writer.write(piece)
        digest = writer.verify()
        return digest if digest in content else writer.commit()
    finally:
        writer.abort()


def _docker(members: Members) -> list[Saved]:
    try:
        listed = msgspec.json.decode(members.read("manifest.json"), type=list[_Saved])
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"the archive's manifest.json cannot be read: {error}") from error
    found = []
    for each in listed:
        config = members.descriptor(each.config, manifests.OCI_CONFIG)
        layers = [members.layer(name) for name in each.layers]
        manifests.check_layers(layers)
        names = tuple(references.parse(name).with_default_tag() for name in each.repo_tags or ())
        found.append(Saved(Target(manifests.write_manifest(config, layers), manifests.OCI_MANIFEST), names))
    return found


def _oci(members: Members) -> list[Saved]:
    index = manifests.parse(members.read("index.json"))
    if not isinstance(index, manifests.Index):
        raise InvalidArgument("the archive's index.json is no index")
    found: dict[str, Saved] = {}
    for each in index.manifests:
        if each.platform is not None and each.platform.os == "unknown":
            continue  # an attestation, which says something about an image and is none
        names = _names(each.annotations or {})
        known = found.get(each.digest)
        if known is None:
            data = members.read("blobs/" + each.digest.replace(":", "/"))
            found[each.digest] = Saved(Target(data, each.media_type), names)
        else:
            found[each.digest] = Saved(known.target, (*known.names, *names))
    return list(found.values())


def _names(annotations: dict[str, str]) -> tuple[Reference, ...]:
    """containerd's annotation is a full name; OCI's may be, or a tag alone, which names nothing."""
    name = annotations.get(CONTAINERD_NAME) or annotations.get(OCI_NAME, "")
    if "/" not in name and ":" not in name:
        return ()
    return (references.parse(name).with_default_tag(),)
