"""References: docker's grammar and its refusals, and the one canonical form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidArgument
from shoal.reference import parse

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("library/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("team/app:1", "docker.io/team/app:1", "team/app:1"),
        ("index.docker.io/team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("reg:5000/a/b/c:v1.2-x_y", "reg:5000/a/b/c:v1.2-x_y", "reg:5000/a/b/c:v1.2-x_y"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"docker.io/library/app:1@{DIGEST}", f"app:1@{DIGEST}"),
    ],
)
def test_forms(text: str, canonical: str, familiar: str) -> None:
    reference = parse(text).with_default_tag()
    assert (reference.canonical, reference.familiar) == (canonical, familiar)
    assert parse(canonical) == reference
    assert parse(familiar) == reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid reference format"),
        ("App", "must be lowercase"),
        ("a b", "invalid reference format"),
        ("app:", "invalid reference format"),
        ("app:1:2", "invalid reference format"),
        ("app@sha256:12", "is not a digest"),
        ("reg:99999/app", "invalid reference format"),
        ("-app", "invalid reference format"),
        ("a" * 256, "must not be more than 255 characters"),
        ("0" * 64, "cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse(text)


@given(st.text(max_size=80))
def test_anything_is_parsed_or_refused_and_what_is_parsed_is_stable(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidArgument:
        return
    assert parse(reference.canonical) == reference
    assert parse(reference.familiar) == reference
