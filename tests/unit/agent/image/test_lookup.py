"""What is told of images: how they came about, and what they take."""

from __future__ import annotations

import msgspec

from agent.image.catalog import Catalog, Name, Record
from agent.image.contents import asked
from agent.image.document import Document, parse_document
from agent.image.lookup import Found, history, image_of, usage
from shoal.model.image import Image


def record(letter: str, *layers: tuple[str, int]) -> Record:
    chain = tuple("sha256:" + each * 64 for each, _ in layers)
    sizes = tuple(size for _, size in layers)
    return Record("sha256:" + letter * 64, "sha256:" + "f" * 64, {}, chain, chain, sizes, 0)


def shown(found: Found) -> Image:
    return Image(size_bytes=found.record.size_bytes)


def test_history_gives_each_layer_to_the_step_that_made_it() -> None:
    document: Document = parse_document(
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"history":['
        b'{"created_by":"ADD root","created":"2026-01-01T00:00:00Z"},'
        b'{"created_by":"ENV a=b","empty_layer":true},{"created_by":"RUN x","comment":"made"}]}'
    )
    made = record("a", ("1", 10), ("2", 20))
    catalog = Catalog(images={made.id: made}, names={"docker.io/library/app:1": Name(made.id, made.digest)})
    lines = history(catalog, made, document)
    assert [(each.created_by, each.size_bytes) for each in lines] == [("RUN x", 20), ("ENV a=b", 0), ("ADD root", 10)]
    assert [each.image_id for each in lines] == [made.id, "", ""]
    assert (lines[0].tags, lines[0].comment) == (("app:1",), "made")


def test_history_knows_the_images_that_one_was_committed_on() -> None:
    document = parse_document(
        b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},'
        b'"history":[{"created_by":"one"},{"created_by":"two"},{"created_by":"three"}]}'
    )
    base, middle = record("a", ("1", 10)), msgspec.structs.replace(record("b", ("2", 20)), parent="sha256:" + "a" * 64)
    top = msgspec.structs.replace(record("c", ("3", 30)), parent=middle.id)
    names = {"docker.io/library/base:1": Name(base.id, base.digest)}
    catalog = Catalog(images={each.id: each for each in (base, middle, top)}, names=names)
    assert [(each.image_id, each.tags) for each in history(catalog, top, document)] == [
        (top.id, ()), (middle.id, ()), (base.id, ("base:1",)),
    ]  # fmt: skip
    assert image_of(catalog, top, document, digest=top.digest).parent == middle.id
    without = catalog.without_image(middle.id)
    assert [each.image_id for each in history(without, top, document)] == [top.id, "", ""]
    assert image_of(without, top, document, digest=top.digest).parent == ""


def test_a_layer_of_two_images_is_shared_and_counted_once() -> None:
    one, two = record("a", ("1", 10), ("2", 20)), record("b", ("1", 10), ("3", 5))
    found, total = usage(Catalog(images={one.id: one, two.id: two}), shown)
    assert [(each.image.size_bytes, each.shared_bytes) for each in found] == [(30, 10), (15, 10)]
    assert total == 35


def test_a_repository_means_its_tags_and_an_id_no_name() -> None:
    one = record("a")
    names = {f"docker.io/library/{each}": Name(one.id, one.digest) for each in ("app:1", "app:2", "other:latest")}
    catalog = Catalog(images={one.id: one}, names=names)

    def named(*texts: str) -> list[list[str]]:
        return [[name.familiar for name in each.names] for each in asked(catalog, texts)]

    assert named("app") == [["app:1", "app:2"]]
    assert named("app:2", "other", "app") == [["app:2", "other:latest", "app:1"]]
    assert named("a" * 12) == [[]]
