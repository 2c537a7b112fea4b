"""Words of a Dockerfile: how a line falls apart into words, and what stands for a variable. Pure.

The rules are those of docker's builder, which knows less than a shell: quotes, the escape character, and the
variables `$K`, `${K}`, `${K:-word}`, `${K:+word}`, `${K:?word}` (each also without the colon: then only what is not
set counts), `${K#pattern}`, `##`, `%`, `%%`, `${K/pattern/word}` and `//`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from shoal.errors import InvalidArgument

ESCAPE = "\\"
_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]", re.ASCII)
_BLANK = " \t\n\v\f\r"


def expand(text: str, variables: Mapping[str, str], escape: str = ESCAPE) -> str:
    """One word: quotes and escapes go, variables become their values; what is not set is empty."""
    return _Scanner(text, variables, escape).whole()


def expand_lines(text: str, variables: Mapping[str, str]) -> str:
    """The lines of a heredoc: variables become their values, quotes are like any other character."""
    return _Scanner(text, variables, ESCAPE).lines()


def split(text: str, variables: Mapping[str, str], escape: str = ESCAPE) -> list[str]:
    """Words, expanded; the blanks in a variable's value separate nothing."""
    return _Scanner(text, variables, escape).words()


def raw_words(text: str, escape: str = ESCAPE) -> list[str]:
    """Words as they stand there, quotes and all."""
    words: list[str] = []
    word, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if char in _BLANK and not quote:
            words += [word] if word else []
            word, at = "", at + 1
            continue
        if char == escape and quote != "'" and at + 1 < len(text):
            word, at = word + text[at : at + 2], at + 2
            continue
        if char in "'\"":
            quote = "" if quote == char else quote or char
        word, at = word + char, at + 1
    return [*words, word] if word else words


def raw_pairs(text: str, escape: str = ESCAPE) -> list[tuple[str, str]]:
    """`K=V K2="x y"`, or of old `K the whole rest`, as they stand there."""
    words = raw_words(text, escape)
    if words and "=" not in words[0]:
        name, *rest = text.split(maxsplit=1)
        if not rest:
            raise InvalidArgument(f"{name} must have two arguments", hint="write NAME=VALUE")
        return [(name, rest[0])]
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"can't find = in {word!r}: it must be of the form NAME=VALUE")
        found.append((name, value))
    return found


class _Scanner:
    """Goes through a text once, from the left."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._at = 0

    def whole(self) -> str:
        return self._until("")

    def lines(self) -> str:
        out = ""
        while self._at < len(self._text):
            char, after = self._text[self._at], self._text[self._at + 1 : self._at + 2]
            if char == "$":
                out += self._dollar()
            elif char == ESCAPE and after and after in "$\\":
                out, self._at = out + after, self._at + 2
            else:
                out, self._at = out + char, self._at + 1
        return out

    def words(self) -> list[str]:
        found: list[str] = []
        word: str | None = None
        while self._at < len(self._text):
            if self._text[self._at] in _BLANK:
                found += [word] if word is not None else []
                word = None
                self._at += 1
            else:
                word = (word or "") + self._piece()
        return found if word is None else [*found, word]

    def _until(self, stop: str) -> str:
        """Up to one of the characters in `stop`, which is left where it is, or to the end."""
        out = ""
        while self._at < len(self._text) and self._text[self._at] not in stop:
            out += self._piece()
        return out

    def _piece(self) -> str:
        """The next quoted string, escaped character, variable, or character."""
        char = self._text[self._at]
        if char == "'":
            return self._single()
        if char == '"':
            return self._double()
        if char == "$":
            return self._dollar()
        if char == self._escape:
            self._at += 2
            return self._text[self._at - 1 : self._at]
        self._at += 1
        return char

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
        found, self._at = self._text[self._at + 1 : end], end + 1
        return found

    def _double(self) -> str:
        self._at += 1
        out = ""
        while self._at < len(self._text):
            char, after = self._text[self._at], self._text[self._at + 1 : self._at + 2]
            if char == '"':
                self._at += 1
                return out
            if char == "$":
                out += self._dollar()
            elif char == self._escape and after and after in ('"', "$", self._escape):
                out, self._at = out + after, self._at + 2
            else:
                out, self._at = out + char, self._at + 1
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        name = self._name()
        if not name:
            raise InvalidArgument(f"bad substitution in {self._text[:200]!r}")
        value = self._modified(name)
        if self._text[self._at : self._at + 1] != "}":
            raise InvalidArgument(f"missing '}}' in {self._text[:200]!r}")
        self._at += 1
        return value

    def _modified(self, name: str) -> str:
        """The value of `name` after what stands between it and the closing brace."""
        held = self._variables.get(name)
        rest = self._text[self._at : self._at + 2]
        if rest[:1] in ("", "}"):
            return held or ""
        if rest in (":-", ":+", ":?") or rest[0] in "-+?":
            self._at += 2 if rest[0] == ":" else 1
            word = self._until("}")
            counts = held is not None and (rest[0] != ":" or held != "")
            return _chosen(rest[-1] if rest[0] == ":" else rest[0], name, held if counts else None, word)
        if rest[0] in "#%":
            twice = rest == rest[0] * 2
            self._at += 2 if twice else 1
            return _trimmed(held or "", self._pattern("}"), at_end=rest[0] == "%", longest=twice)
        if rest[0] == "/":
            everywhere = rest == "//"
            self._at += 2 if everywhere else 1
            pattern = self._pattern("/}")
            word = ""
            if self._text[self._at : self._at + 1] == "/":
                self._at += 1
                word = self._until("}")
            return re.sub(_regex(pattern), lambda _: word, held or "", count=0 if everywhere else 1, flags=re.DOTALL)
        raise InvalidArgument(f"unsupported modifier ({rest}) in substitution")

    def _pattern(self, stop: str) -> str:
        """Like `_until`, but an escaped character keeps its escape, which says that it stands for itself."""
        out = ""
        while self._at < len(self._text) and self._text[self._at] not in stop:
            if self._text[self._at] == self._escape:
                out, self._at = out + ESCAPE + self._text[self._at + 1 : self._at + 2], self._at + 2
            else:
                out += self._piece()
        return out

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]


def _chosen(kind: str, name: str, held: str | None, word: str) -> str:
    if kind == "+":
        return word if held is not None else ""
    if held is None and kind == "?":
        raise InvalidArgument(f"{name}: {word or 'not allowed to be unset'}")
    return word if held is None else held


def _trimmed(value: str, pattern: str, *, at_end: bool, longest: bool) -> str:
    """`value` without the shortest or longest beginning (or end) that fits the pattern."""
    fits: Callable[[str], object] = re.compile(_regex(pattern), re.DOTALL).fullmatch
    lengths = range(len(value) + 1)
    for length in reversed(lengths) if longest else lengths:
        cut = value[len(value) - length :] if at_end else value[:length]
        if fits(cut):
            return value[: len(value) - length] if at_end else value[length:]
    return value


def _regex(pattern: str) -> str:
    """A shell's pattern: `*`, `?`, and the backslash before what stands for itself."""
    out, characters = "", iter(pattern)
    for char in characters:
        if char == "*":
            out += ".*"
        elif char == "?":
            out += "."
        else:
            out += re.escape(next(characters, ESCAPE) if char == ESCAPE else char)
    return out
