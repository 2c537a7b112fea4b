"""The catalog as a value: what a change makes of it."""

from __future__ import annotations

import msgspec

from agent.image.catalog import Catalog, Record

RECORD = Record("sha256:a", "sha256:m", {"sha256:a": "config"}, ("sha256:d",), ("sha256:c",), (10,), kept_at_ns=1)


def test_an_image_that_is_there_just_so_changes_nothing() -> None:
    catalog = Catalog().with_image(RECORD)
    assert catalog.with_image(msgspec.structs.replace(RECORD, kept_at_ns=2)) is catalog


def test_an_image_that_comes_by_another_manifest_is_newer_and_has_the_content_of_both() -> None:
    other = msgspec.structs.replace(RECORD, digest="sha256:n", blobs={"sha256:n": "manifest"}, kept_at_ns=2)
    (found,) = Catalog().with_image(RECORD).with_image(other).images.values()
    assert (found.digest, found.kept_at_ns, set(found.blobs)) == ("sha256:n", 2, {"sha256:a", "sha256:n"})
