"""How a configuration is refused: by the name of the field, as not supported or as invalid."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from agent.runtime.failure import Failure

_Value = TypeVar("_Value")


def refuse(what: str, hint: str = "") -> Failure:
    return Failure("Unsupported", f"config: {what} is not supported by this runtime", hint)


def invalid(message: str) -> Failure:
    return Failure("InvalidArgument", f"config: {message}")


def only(where: str, value: Mapping[str, Any], known: str) -> None:
    """Refuse a field that is set and that nobody here reads."""
    names = _words(known)
    for name in value:
        if name not in names and value[name] not in (None, "", 0, False, [], {}):
            raise refuse(f"{where}{name}")


def checked(where: str, parse: Callable[[Mapping[str, Any]], _Value], value: Mapping[str, Any]) -> _Value:
    """`parse(value)`; JSON of another shape than it expects is an invalid configuration."""
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid(f"{where}{type(error).__name__}: {error}") from error


@lru_cache(maxsize=64)
def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=512)
def absolute(path: str) -> str:
    """The normal form of an absolute path."""
    if not path.startswith("/") or "\0" in path:
        raise invalid(f"path {path!r} is not absolute")
    return os.path.normpath("/" + path.lstrip("/"))
