"""Which names of images a pattern means."""

from __future__ import annotations

import pytest

from agent.image.filter import selected
from shoal.errors import InvalidArgument, NotFound
from shoal.model.base import Meta
from shoal.model.image import Image

ALL = [
    Image(meta=Meta(id="sha256:1"), tags=("docker.io/library/app:1", "reg:5000/team/app:2")),
    Image(meta=Meta(id="sha256:2"), tags=("docker.io/library/base:1",)),
]


def nothing(name: str) -> Image:
    raise NotFound(name)


def names(pattern: str) -> list[str]:
    return [tag for each in selected(ALL, "", [("reference", pattern)], find=nothing) for tag in each.tags]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a*", ["docker.io/library/app:1"]),
        ("[^a]*", ["docker.io/library/base:1"]),
        ("[!a]*", ["docker.io/library/app:1"]),
        ("*/*/app", ["docker.io/library/app:1", "reg:5000/team/app:2"]),
        ("app:?", ["docker.io/library/app:1"]),
        ("*:1", ["docker.io/library/app:1", "docker.io/library/base:1"]),
        ("nosuch", []),
    ],
)
def test_patterns_are_those_of_go(pattern: str, found: list[str]) -> None:
    assert names(pattern) == found


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        names("[a")
