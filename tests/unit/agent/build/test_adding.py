"""What ADD makes of what git lists."""

from __future__ import annotations

import pytest

from agent.build.adding import chosen_commit

LISTED = "".join(
    f"{commit * 40}\t{name}\n"
    for commit, name in (
        ("1", "refs/heads/a/main"),
        ("2", "refs/heads/main"),
        ("3", "refs/heads/v1"),
        ("4", "refs/tags/v1"),
        ("5", "refs/tags/v2"),
        ("6", "refs/tags/v2^{}"),
        ("7", "refs/tags/old/v3"),
        ("8", "refs/pull/1/head"),
    )
)


@pytest.mark.parametrize(
    ("name", "commit"),
    [
        ("main", "2"),
        ("a/main", "1"),
        ("v1", "3"),
        ("refs/tags/v1", "4"),
        ("v2", "6"),
        ("v3", ""),
        ("pull/1/head", "8"),
    ],
)
def test_a_name_means_itself_and_not_what_ends_like_it(name: str, commit: str) -> None:
    assert chosen_commit(LISTED, name) == commit * 40
