"""Coercion: from what was typed to the value that a command's function gets.

Every flag of ours is a text, a switch or has a parser of its own, so typer's coercion, which loads pydantic for each
parameter (a third of a command's start), has nothing to add. `plain` puts this one in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from typer._coercion import RuntimeParam


@dataclass(frozen=True)
class Plain(RuntimeParam):
    """Texts through the flag's parser, one by one for a list; anything else is a default, a value already."""

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002
        if isinstance(value, list | tuple):
            return [self._read(each) for each in value]
        return self._read(value)

    def _read(self, value: Any) -> Any:
        parser = self.parameter_info.parser
        return parser(value) if parser is not None and isinstance(value, str) else value


def plain(params: Iterable[Any]) -> None:
    """Let these parameters of a built command read their values by `Plain`."""
    for param in params:
        descriptor = param.type_descriptor
        param._runtime_param = Plain(descriptor.parameter_info, descriptor.annotation)
