"""Where a build's cache comes from and goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.build.cache import Target, sources, targets
from shoal.errors import InvalidArgument, ShoalError, Unsupported
from shoal.v1.build_pb2 import CacheExport


def test_a_cache_comes_from_folders_and_registries() -> None:
    found = sources(["type=local,src=a", "team/app:cache", "type=registry,ref=localhost:5000/app"])
    assert found.folders == [Path("a")]
    assert found.references == ["team/app:cache", "localhost:5000/app"]


def test_a_cache_goes_to_one_place_of_each_kind() -> None:
    assert targets([]) == (None, None, False)
    found = targets(["type=inline", "type=local,dest=a,mode=max", "type=registry,ref=app,compression=zstd"])
    assert found.local == Target(Path("a"), "max")
    assert found.registry == CacheExport(reference="app", mode="min", compression="zstd")
    assert found.inline
    said = "type=registry,ref=app,mode=max,ignore-error=true,oci-mediatypes=true,image-manifest=true"
    assert targets([said]).registry == CacheExport(reference="app", mode="max", compression="gzip", ignore_error=True)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("type=gha", Unsupported, "type=gha is not supported"),
        ("type=s3,bucket=b", Unsupported, "type=s3 is not supported"),
        ("app:cache", InvalidArgument, "has no type"),
        ("type=local", InvalidArgument, "has no dest"),
        ("type=local,where=c", InvalidArgument, "invalid field 'where=c'"),
        ("type=registry,mode=max", InvalidArgument, "has no ref"),
        ("type=registry,ref=a,mode=all", InvalidArgument, "invalid mode 'all'"),
        ("type=registry,ref=a,image-manifest=false", Unsupported, "image-manifest=false"),
        ("type=registry,ref=a,compression=estargz", Unsupported, "compression=estargz"),
        ("type=registry,ref=a,force-compression=true", InvalidArgument, "invalid field 'force-compression=true'"),
        ("type=inline,mode=max", InvalidArgument, "invalid field 'mode=max'"),
        ("type=registry,ref=a,ignore-error=perhaps", InvalidArgument, "invalid ignore-error=perhaps"),
    ],
)
def test_what_a_target_cannot_be_is_refused_by_name(text: str, kind: type[ShoalError], words: str) -> None:
    with pytest.raises(kind, match=words):
        targets([text])


def test_what_a_source_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="several --cache-to type=inline"):
        targets(["type=inline", "type=inline"])
    with pytest.raises(Unsupported, match="type=inline is not supported"):
        sources(["type=inline"])
    with pytest.raises(InvalidArgument, match="has no ref"):
        sources(["type=registry"])
