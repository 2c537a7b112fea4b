"""What a registry has of earlier builds, as steps."""

from __future__ import annotations

import msgspec
import pytest

from agent.build.cache import Entry
from agent.build.published import KIND, deposit, inline, steps_of
from agent.image import document as documents
from agent.image.catalog import Layer
from agent.image.deposit import Found
from agent.image.manifest import OCI_CONFIG, OCI_LAYER, Descriptor
from agent.image.platform import Platform
from shoal import digest as digests
from shoal.errors import InvalidArgument, NotFound, Unsupported
from shoal.model.image import ImageConfig
from shoal.reference import parse

NAME = parse("localhost:5000/app:cache")
SECOND = 10**9


def layers(*names: str) -> list[Layer]:
    diff_ids = [digests.of(name.encode()) for name in names]
    chain = digests.chain_ids(diff_ids)
    return [Layer(each, on, each, OCI_LAYER, 100, 50) for each, on in zip(diff_ids, chain, strict=True)]


def entry(layer: Layer) -> Entry:
    return Entry(layer, "RUN x", 7 * SECOND, 8 * SECOND)


def packed(layer: Layer) -> Descriptor:
    return Descriptor(f"{OCI_LAYER}+gzip", digests.of(layer.digest.encode()), 10)


def image(cached: dict[str, int], *made: str, shown: list[Descriptor]) -> Found:
    """Of an image with these layers, which a registry has as `shown`."""
    document = documents.built(
        None,
        platform=Platform("linux", "amd64", ""),
        config=ImageConfig(),
        author="",
        diff_ids=[each.diff_id for each in layers(*made)],
        steps=[(f"RUN {each}", 7 * SECOND, "", False) for each in made] + [("ENV a=b", 7 * SECOND, "", True)],
        cached=cached,
    )
    return Found(OCI_CONFIG, True, documents.write_document(document), tuple(shown), ())


def test_a_deposit_speaks_of_layers_as_they_leave() -> None:
    base, top = layers("base", "top")
    made = deposit({"one": entry(base), "two": entry(top), "three": entry(base)})
    assert [each.digest for each in made.layers] == [base.digest, top.digest]
    config = made.configured([packed(base), packed(top)])
    steps = steps_of(Found(KIND, False, config, made.layers, ()), NAME)
    assert steps.keys() == {"one", "two", "three"}
    assert steps["two"].layer == Layer(
        top.diff_id, top.chain_id, packed(top).digest, packed(top).media_type, 10, top.size_bytes
    )


def test_an_image_says_which_steps_made_its_layers() -> None:
    base, top = layers("base", "top")
    [other] = layers("other")
    cached = inline({"two": entry(top), "not": entry(other)}, [base, top])
    assert cached == {"two": 1}
    steps = steps_of(image(cached, "base", "top", shown=[packed(base), packed(top)]), NAME)
    assert steps.keys() == {"two"}
    assert (steps["two"].title, steps["two"].made_at_ns) == ("RUN top", 7 * SECOND)
    assert steps["two"].layer.chain_id == top.chain_id
    assert steps["two"].layer.digest == packed(top).digest


@pytest.mark.parametrize("number", [-1, 2])
def test_an_image_that_speaks_of_layers_that_it_does_not_have_is_refused(number: int) -> None:
    with pytest.raises(InvalidArgument, match="other layers than the image has"):
        steps_of(image({"x": number}, "a", "b", shown=[packed(each) for each in layers("a", "b")]), NAME)


def test_what_holds_no_steps_of_ours_is_refused_by_name() -> None:
    shown = [packed(each) for each in layers("a")]
    with pytest.raises(NotFound, match="has no cache in it"):
        steps_of(image({}, "a", shown=shown), NAME)
    plain = image({}, "a", shown=shown)
    said = {**msgspec.json.decode(plain.config), "moby.buildkit.cache.v0": "W10="}
    with pytest.raises(Unsupported, match="is BuildKit's"):
        steps_of(msgspec.structs.replace(plain, config=msgspec.json.encode(said)), NAME)
    with pytest.raises(Unsupported, match="a cache of BuildKit"):
        steps_of(Found("application/vnd.buildkit.cacheconfig.v0", False, b"{}", (), ()), NAME)
    with pytest.raises(Unsupported, match="is no build cache but 'application/x'"):
        steps_of(Found("application/x", False, b"{}", (), ()), NAME)
