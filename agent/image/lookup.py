"""Which image somebody means, and how it is shown. Pure, over the catalog."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import msgspec

from agent.image.catalog import Catalog, Record
from agent.image.document import Document, parse_time
from shoal import ids
from shoal import reference as references
from shoal.errors import InvalidArgument, NotFound
from shoal.model.base import Meta
from shoal.model.image import HistoryLine, Image, ImageUsage
from shoal.reference import Reference

_ID = re.compile(r"(sha256:)?[0-9a-f]{1,64}")


class Found(msgspec.Struct, frozen=True):
    """An image, the manifest or index digest by which it was meant, and the canonical name that was given, empty
    when it was an id."""

    record: Record
    digest: str
    name: str = ""


def find(catalog: Catalog, text: str) -> Found:
    """The image of a name, of an id, or of a unique prefix of an id; a name counts first, a whole id before it.

    Raises NotFound, Conflict for an ambiguous prefix, InvalidArgument for what can be neither.
    """
    image_id = "sha256:" + text.removeprefix("sha256:")
    if image_id in catalog.images:
        return Found(catalog.images[image_id], catalog.images[image_id].digest)
    is_id = _ID.fullmatch(text) is not None
    try:
        reference = references.parse(text).with_default_tag()
    except InvalidArgument:
        if not is_id:
            raise
        missing = NotFound(f"No such image: {text}")
    else:
        if (named := _named(catalog, reference)) is not None:
            return named
        missing = NotFound(f"No such image: {reference.familiar}")
    if not is_id or not any(each.startswith(image_id) for each in catalog.images):
        raise missing
    record = catalog.images[ids.resolve(image_id, catalog.images, kind="image")]
    return Found(record, record.digest)


def _named(catalog: Catalog, reference: Reference) -> Found | None:
    name = catalog.names.get(reference.key)
    if name is not None:
        return Found(catalog.images[name.image_id], name.digest, reference.key)
    # A digest says which image is meant, whatever it is called here.
    record = catalog.holder(reference.digest) if reference.digest else None
    return Found(record, reference.digest) if record is not None else None


def image_of(catalog: Catalog, record: Record, document: Document, *, digest: str) -> Image:
    """The image as users see it."""
    names = [references.parse(name) for name in catalog.names_of(record.id)]
    return Image(
        meta=Meta(id=record.id, created_at_ns=document.created_at_ns, updated_at_ns=record.kept_at_ns),
        tags=tuple(name.familiar for name in names if not name.digest),
        digests=tuple(name.familiar for name in names if name.digest),
        manifest_digest=digest,
        architecture=document.architecture,
        os=document.os,
        author=document.author or "",
        comment=document.last_comment,
        size_bytes=record.size_bytes,
        config=document.image_config(),
        diff_ids=record.diff_ids,
        parent=record.parent if record.parent in catalog.images else "",
    )


def history(catalog: Catalog, record: Record, document: Document) -> list[HistoryLine]:
    """How an image came about, the last instruction first. Of the images below, those are known that it was committed
    on: each is the line below."""
    sizes = iter(record.layer_sizes)
    lines = [
        HistoryLine(
            created_at_ns=parse_time(step.created or ""),
            created_by=step.created_by or "",
            size_bytes=0 if step.empty_layer else next(sizes, 0),
            comment=step.comment or "",
        )
        for step in document.history or ()
    ]
    lines.reverse()
    here: Record | None = record
    for number, line in enumerate(lines):
        if here is None:
            break
        lines[number] = msgspec.structs.replace(line, image_id=here.id, tags=tuple(_tags(catalog, here)))
        here = catalog.images.get(here.parent)
    return lines


def _tags(catalog: Catalog, record: Record) -> list[str]:
    names = [references.parse(name) for name in catalog.names_of(record.id)]
    return [name.familiar for name in names if not name.digest]


def usage(catalog: Catalog, shown: Callable[[Found], Image]) -> tuple[list[ImageUsage], int]:
    """What each image takes of the disk, newest first, and what all together take; how many containers it has, is for
    others to say."""
    holders = Counter(chain_id for record in catalog.images.values() for chain_id in record.chain_ids)
    sizes: dict[str, int] = {}
    found = []
    for record in catalog.images.values():
        layers = dict(zip(record.chain_ids, record.layer_sizes, strict=True))
        sizes.update(layers)
        shared = sum(size_bytes for chain_id, size_bytes in layers.items() if holders[chain_id] > 1)
        found.append(ImageUsage(shown(Found(record, record.digest)), shared))
    found.sort(key=lambda each: (-each.image.meta.created_at_ns, each.image.meta.id))
    return found, sum(sizes.values())
