"""What Go's JSON says differently than its templates see it.

Docker's templates run on structures: a field is there whether or not JSON leaves it out where it is empty, and a list
or map that is null in JSON is an empty one. So a document has more in it than it prints; `functions` tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Unsaid(NamedTuple):
    """A field that JSON leaves out, and a template sees as `value`."""

    value: Any


class NullList(list[Any]):
    """An empty list that is null in JSON."""


class Texts(dict[str, str]):
    """A map of texts: what is not in it is an empty one."""


class NullMap(Texts):
    """An empty map that is null in JSON."""


def listed(values: Iterable[Any]) -> list[Any]:
    """As a list, null where it is empty."""
    return list(values) or NullList()


def mapped(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """As a map, null where it is empty."""
    return values or NullMap()


def said(value: Any) -> Any:
    """`value` where there is something to say: as JSON has it with Go's `omitempty`."""
    return value if value else Unsaid(value)
