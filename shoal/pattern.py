"""Patterns for paths, as docker has them in `.dockerignore` and `--exclude`. Pure.

A pattern is Go's filepath.Match with `**` for any number of folders. What fits is hidden with all below it; a pattern
that begins with `!` brings it back; of several that fit, the last one counts. Anchored at the top: `a` means `a`
there and no `x/a`. These are not git's rules.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from shoal.errors import InvalidArgument

_NOTHING = re.compile(r"(?!)")


def read_ignore(text: str) -> list[str]:
    """The patterns of a `.dockerignore`, cleaned."""
    found = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.startswith("#") or not line.strip():
            continue
        pattern = line.strip()
        back = pattern.startswith("!")
        pattern = pattern[1:].strip() if back else pattern
        pattern = posixpath.normpath(pattern).lstrip("/") if pattern else ""
        if back or pattern not in ("", "."):  # docker ignores a lone dot, and so do we
            found.append(("!" if back else "") + pattern)
    return found


class Matcher:
    """A list of patterns. Raises InvalidArgument for one that cannot be."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        self.brings_back = False
        for each in patterns:
            back = each.startswith("!")
            pattern = posixpath.normpath(each[1:] if back else each).lstrip("/")
            if back and not each[1:]:
                raise InvalidArgument('illegal exclusion pattern: "!"')
            self.brings_back |= back
            self._rules.append((back, re.compile(_regex(pattern), re.DOTALL)))
        # What may be skipped in one go where nothing is brought back.
        together = "|".join(f"(?:{rule.pattern})" for _, rule in self._rules)
        self._any = re.compile(together, re.DOTALL) if together else _NOTHING

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matches(self, path: str) -> bool:
        """Whether a path is hidden, itself or with a folder above it."""
        if not self.brings_back:
            return self._any.match(path) is not None
        hidden = False
        for back, rule in self._rules:
            if hidden == back and rule.match(path):
                hidden = not back
        return hidden


def is_pattern(text: str) -> bool:
    return any(each in text for each in "*?[\\")


def segment_regex(pattern: str) -> str:
    """Go's filepath.Match for one name or path. Raises InvalidArgument for a pattern that is none."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "\\":
            if at == len(pattern):
                raise InvalidArgument(f"syntax error in pattern {pattern!r}")
            out, at = out + re.escape(pattern[at]), at + 1
        elif char == "[":
            piece, at = _set(pattern, at)
            out += piece
        else:
            out += re.escape(char)
    return out


def _set(pattern: str, at: int) -> tuple[str, int]:
    """`[a-z]`, `[^a-z]`: a slash is never in it."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges = ""
    while True:
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1)
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
        if pattern[at : at + 1] == "]":
            break
    if not ranges:
        return "[^/]" if negated else "(?!)", at + 1
    return f"(?!/)[{'^' if negated else ''}{ranges}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    elif char in ("", "-", "]"):
        raise InvalidArgument(f"syntax error in pattern {pattern!r}")
    if not char:
        raise InvalidArgument(f"syntax error in pattern {pattern!r}")
    return char, at + 1


def _regex(pattern: str) -> str:
    """The whole pattern, and what lies below what fits. `**` with its slash is any number of folders, also none."""
    first, *rest = pattern.split("**")
    out = segment_regex(first)
    for number, part in enumerate(rest, start=1):
        part = part.removeprefix("/")
        out += "(?:.*/)?" if part or number < len(rest) else ".*"
        out += segment_regex(part)
    return f"{out}(?:/.*)?$"
