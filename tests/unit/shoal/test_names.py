"""How another container is named that has a name of one's own."""

import pytest

from shoal.errors import InvalidArgument
from shoal.names import link_parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [("db", ("db", "db")), ("mysql:db", ("mysql", "db")), ("/mysql:my-db", ("mysql", "my-db"))],
)
def test_an_alias_is_optional(text, expected):
    assert link_parts(text) == expected


@pytest.mark.parametrize("text", ["", ":", "a:", ":b", "a:b:c"])
def test_what_is_no_link(text):
    with pytest.raises(InvalidArgument, match="bad format for links"):
        link_parts(text)
