"""The functions of `--format` templates, how Go prints a value, and what counts as true.

Go's own (`index`, `printf`, `eq`…) and docker's (`json`, `join`, `split`, `upper`, `truncate`…). `template` calls
them; all are pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from cli.output.unsaid import NullList, NullMap, Texts, Unsaid
from cli.output.words import quoted
from shoal.errors import InvalidArgument

_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<digits>\d*))?(?P<verb>[a-zA-Z%])")


class FunctionError(InvalidArgument):
    """A function or a field that a template uses wrongly."""


class Method:
    """A field that takes arguments, such as `.Label "key"`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, arguments: list[Any]) -> Any:
        try:
            return self._function(*arguments)
        except TypeError as error:
            raise FunctionError(f"template: wrong number of args for method: got {len(arguments)}") from error


def field(value: Any, name: str) -> Any:
    """`.name` of a value; raises FunctionError when it has none. A missing key of an empty map is no error in Go,
    but a row or a document has all of its fields, so that a typing error is always told."""
    if isinstance(value, dict):
        if name in value:
            found = value[name]
            return found.value if isinstance(found, Unsaid) else found
        if isinstance(value, Texts):
            return ""
        raise FunctionError(f'template: executing at <.{name}>: map has no entry for key "{name}"')
    if value is None:
        raise FunctionError(f"template: executing at <.{name}>: nil pointer evaluating .{name}")
    raise FunctionError(f"template: executing at <.{name}>: can't evaluate field {name} in type {_kind(value)}")


def truth(value: Any) -> bool:
    """Whether `if` takes the first branch: not for false, 0, nothing and what is empty."""
    return bool(value)


def shown(value: Any) -> str:
    """Go's %v."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        words = (f"{key}:{shown(value[key])}" for key in sorted(value) if not isinstance(value[key], Unsaid))
        return f"map[{' '.join(words)}]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(shown, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def to_json(value: Any) -> str:
    """Compact JSON, as Go writes it: no spaces, and no escapes for what is not ASCII."""
    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)


def call(name: str, arguments: list[Any]) -> Any:
    """The result of a function; raises FunctionError for arguments that it cannot take."""
    try:
        return FUNCTIONS[name](*arguments)
    except FunctionError:
        raise
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise FunctionError(f"template: error calling {name}: {error}") from error


def plain(value: Any) -> Any:
    """What JSON says of it."""
    if isinstance(value, NullList | NullMap):
        return None
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if not isinstance(each, Method | Unsaid)}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def _kind(value: Any) -> str:
    return {bool: "bool", int: "int", float: "float64", str: "string", list: "slice", tuple: "slice"}.get(
        type(value), type(value).__name__
    )


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = field(value, key) if isinstance(value, Texts) else value.get(key)
        elif isinstance(value, list | tuple | str):
            if not isinstance(key, int) or not 0 <= key < len(value):
                raise FunctionError(f"template: error calling index: index out of range: {shown(key)}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        else:
            raise FunctionError(f"template: error calling index: can't index item of type {_kind(value)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not all(0 <= each <= len(value) for each in bounds):
        raise FunctionError(f"template: error calling slice: index out of range: {shown(list(bounds))}")
    return value[slice(*bounds[:2])] if len(bounds) > 1 else value[bounds[0] :] if bounds else value


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise FunctionError("template: error calling eq: missing argument for comparison")
    return any(type(first) is type(each) and first == each for each in others)


def _print(*values: Any) -> str:
    """Go's Sprint: a space between two that are both no strings."""
    out = ""
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out += " "
        out += shown(value)
    return out


def _printf(template: str, *values: Any) -> str:
    rest = list(values)

    def one(found: re.Match[str]) -> str:
        verb = found["verb"]
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        return _pad(_formatted(verb, found["digits"], found["flags"], rest.pop(0)), found["width"], found["flags"])

    out = _VERB.sub(one, template)
    extra = ", ".join(f"{_kind(each)}={shown(each)}" for each in rest)
    return f"{out}%!(EXTRA {extra})" if extra else out


def _formatted(verb: str, digits: str | None, flags: str, value: Any) -> str:
    sign = "+" if "+" in flags and isinstance(value, int | float) and value >= 0 else ""
    if verb == "q":
        return quoted(str(value))
    if verb in "sv":
        text = shown(value)
        return text[: int(digits or 0)] if digits is not None and verb == "s" else text
    if verb == "t" and isinstance(value, bool):
        return shown(value)
    if verb in "dxXob" and isinstance(value, int):
        return sign + format(value, verb)
    if verb == "x" and isinstance(value, str):
        return value.encode().hex()
    if verb == "c" and isinstance(value, int):
        return chr(value)
    if verb in "feEgG" and isinstance(value, float):
        return sign + format(value, f".{digits or (0 if digits == '' else 6)}{verb}" if verb in "feE" else verb)
    return f"%!{verb}({_kind(value)}={shown(value)})"


def _pad(text: str, width: str, flags: str) -> str:
    count = int(width or 0)
    if "-" in flags:
        return text.ljust(count)
    return text.zfill(count) if "0" in flags and text.lstrip("+-")[:1].isdigit() else text.rjust(count)


def _pad_docker(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _join(values: Any, separator: str) -> str:
    if isinstance(values, dict | str):
        raise FunctionError(
            f"template: error calling join: wrong type for value; expected []string; got {_kind(values)}"
        )
    return separator.join(values)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "join": _join,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": lambda text: re.sub(r"\b\w", lambda found: found[0].upper(), text),
    "lower": str.lower,
    "upper": str.upper,
    "pad": _pad_docker,
    "truncate": lambda text, width: text[:width],
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "print": _print,
    "printf": _printf,
    "len": len,
    "index": _index,
    "slice": _slice,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
}
