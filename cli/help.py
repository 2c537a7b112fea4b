"""How help looks: usage, one sentence, examples, then aliases and flags. Pure text; `command` and `group` fill it.

Docker's layout, with the examples first, because that is what people look for.
"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cli.grammar import Flag


class Line(NamedTuple):
    """One flag: its names, the kind of its value ("" for a switch), its sentence, its default ("" for none)."""

    names: Sequence[str]
    metavar: str
    text: str
    default: str = ""


def command(
    path: str, *, usage: str, text: str, examples: Sequence[str], aliases: Sequence[str], flags: Sequence[Line]
) -> str:
    """The help of one command."""
    parts = [f"Usage:  {path} {usage}".rstrip(), text]
    if examples:
        parts.append("Examples:\n" + "\n".join(f"  {each}" for each in examples))
    if len(aliases) > 1:
        parts.append("Aliases:\n  " + ", ".join(aliases))
    if flags:
        parts.append("Options:\n" + _flags(flags))
    return "\n\n".join(parts)


def group(
    path: str, *, text: str, examples: Sequence[str], sections: dict[str, list[tuple[str, str]]], flags: Sequence[Line]
) -> str:
    """The help of a group of commands; `sections` are titles with (name, sentence)."""
    parts = [f"Usage:  {path} {'[OPTIONS] ' if flags else ''}COMMAND", text]
    if examples:
        parts.append("Examples:\n" + "\n".join(f"  {each}" for each in examples))
    width = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
    for title, rows in sections.items():
        parts.append(f"{title}:\n" + "\n".join(f"  {name:<{width}}  {text}" for name, text in rows))
    if flags:
        parts.append("Global Options:\n" + _flags(flags))
    parts.append(f"Run '{path} COMMAND --help' for more information on a command.")
    return "\n\n".join(parts)


def sentences(function: Callable[..., Any]) -> str:
    """The docstring of a command's function, which is its text."""
    return inspect.getdoc(function) or ""


def lines(described: Iterable[tuple[Flag, Any]]) -> list[Line]:
    """Flags with their defaults, as help shows them."""
    return [Line(flag.names, _metavar(flag), flag.help, _default(value)) for flag, value in described]


def _metavar(flag: Flag) -> str:
    return flag.metavar if flag.takes_value else ""


def _default(value: Any) -> str:
    """What the help names as the default: nothing for "not given"."""
    if value in (None, False, "", 0, -1) or value == [] or value == () or isinstance(value, bytes):
        return ""
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _flags(flags: Iterable[Line]) -> str:
    rows = sorted((_left(each), _right(each)) for each in flags)
    rows.sort(key=lambda row: row[0].lstrip(" -").split(", --")[-1])
    width = max(len(left) for left, _ in rows)
    room = max(shutil.get_terminal_size((100, 24)).columns - width - 5, 30)
    out = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, room) or [""]
        out.append(f"  {left:<{width}}   {wrapped[0]}".rstrip())
        out += [f"  {'':<{width}}   {more}" for more in wrapped[1:]]
    return "\n".join(out)


def _left(line: Line) -> str:
    short = [each for each in line.names if not each.startswith("--")]
    long = [each for each in line.names if each.startswith("--")]
    names = ", ".join([*short, *long]) if short else "    " + ", ".join(long)
    return f"{names} {line.metavar}".rstrip()


def _right(line: Line) -> str:
    return f"{line.text} (default {line.default})" if line.default else line.text
