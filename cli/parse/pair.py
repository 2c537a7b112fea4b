"""`key=value` in its many uses: labels, sysctls, filters, environment variables and files of them.

`label`, `variable` and `condition` are for flags: they look at one text, which stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from shoal.errors import InvalidArgument
from shoal.v1 import engine_pb2


def label(text: str) -> str:
    """`key=value` or `key`."""
    if not text.partition("=")[0]:
        raise InvalidArgument(f"invalid label '{text}': empty name")
    return text


def labels(texts: Iterable[str]) -> dict[str, str]:
    """`key=value` or `key` (an empty value); the last one of a key wins."""
    out = {}
    for text in texts:
        key, _, value = label(text).partition("=")
        out[key] = value
    return out


def options(texts: Iterable[str], what: str) -> dict[str, str]:
    """`key=value`, both needed; `what` they are, for who gets it wrong."""
    out = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"invalid {what} '{text}'", hint="it looks like name=value")
        out[key] = value
    return out


def lines_of(files: Iterable[str]) -> list[str]:
    """The lines of these files that say something."""
    return [line for path in files for line in _lines(path)]


def sysctls(texts: Iterable[str]) -> dict[str, str]:
    """`key=value`, both needed."""
    out = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"invalid sysctl '{text}'", hint="it looks like net.core.somaxconn=1024")
        out[key] = value
    return out


def condition(text: str) -> str:
    """`key=value` of a filter, both needed."""
    key, equals, _ = text.partition("=")
    if not key or not equals:
        raise InvalidArgument("bad format of filter (expected name=value)")
    return text


def filters(texts: Iterable[str]) -> list[engine_pb2.Filter]:
    """`key=value`, as `condition` lets them through; keys count in lower case."""
    pairs = (text.partition("=") for text in texts)
    return [engine_pb2.Filter(key=key.strip().lower(), value=value.strip()) for key, _, value in pairs]


def variable(text: str) -> str:
    """`KEY=value` or `KEY`."""
    if not text.partition("=")[0]:
        raise InvalidArgument(f"invalid environment variable: {text}")
    return text


def environment(texts: Iterable[str], files: Iterable[str], own: Mapping[str, str]) -> list[str]:
    """`KEY=value` of files first, then of flags (each a `variable`), which win. A `KEY` alone is copied from `own`, or
    left out."""
    held: dict[str, str] = {}
    for path in files:
        for line in _lines(path):
            key, equals, value = line.partition("=")
            if not key.strip():
                raise InvalidArgument(f"{path}: no variable name on line '{line}'")
            if len(key.split()) > 1 or key != key.strip():
                raise InvalidArgument(f"{path}: poorly formatted environment: variable '{key}' contains whitespaces")
            _put(held, key, value if equals else None, own)
    for text in texts:
        key, equals, value = text.partition("=")
        _put(held, key, value if equals else None, own)
    return [f"{key}={value}" for key, value in held.items()]


def _put(held: dict[str, str], key: str, value: str | None, own: Mapping[str, str]) -> None:
    value = own.get(key) if value is None else value
    if value is not None:
        held.pop(key, None)
        held[key] = value


def _lines(path: str) -> list[str]:
    """The lines of an env file that say something."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123
            text = file.read()
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"env file {path} contains invalid utf8 bytes") from error
    lines = (line.lstrip() for line in text.split("\n"))
    return [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#")]


def own_environment() -> Mapping[str, str]:
    """The client's own variables."""
    return os.environ
