"""A Dockerfile's text as instructions. Pure; what an instruction means is decided elsewhere.

Continued lines, comments between them, parser directives and heredocs are read as docker's own parser does; a test
holds both side by side. Line numbers count from 1.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator

import msgspec

from agent.image import words
from shoal.errors import InvalidArgument, Unsupported

KEYWORDS = frozenset(
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME"
    " WORKDIR".split()
)
_JSON = frozenset("ADD CMD COPY ENTRYPOINT RUN SHELL VOLUME".split())
_PAIRS = frozenset("ENV LABEL".split())
_HEREDOCS = frozenset("ADD COPY RUN".split())
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
_BLANKS = re.compile(r"[ \t\v\f\r]+")


class DockerfileError(InvalidArgument):
    """What is wrong in the lines `first` to `last`."""

    def __init__(self, message: str, first: int, last: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.first = first
        self.last = last


@contextlib.contextmanager
def located(found: Instruction) -> Iterator[None]:
    """What is wrong with a value inside is told as a mistake in the instruction's lines."""
    try:
        yield
    except DockerfileError:
        raise
    except (InvalidArgument, Unsupported) as error:
        raise DockerfileError(error.message, found.first, found.last, hint=error.hint) from error


class Heredoc(msgspec.Struct, frozen=True):
    """`<<NAME`: `expand` says whether variables in it are replaced (its name was not quoted)."""

    name: str
    content: str
    descriptor: int = 0
    expand: bool = True


class Instruction(msgspec.Struct, frozen=True):
    """`text` is what follows keyword and flags; `argv` its JSON form, where it has one. `original` is the whole line,
    continuations joined. ONBUILD's `text` is an instruction itself."""

    keyword: str
    flags: tuple[str, ...]
    text: str
    argv: tuple[str, ...] | None
    heredocs: tuple[Heredoc, ...]
    original: str
    first: int
    last: int

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments, not expanded: of a JSON form, or separated by blanks."""
        return self.argv if self.argv is not None else tuple(each for each in _BLANKS.split(self.text) if each)


class Dockerfile(msgspec.Struct, frozen=True):
    instructions: tuple[Instruction, ...]
    escape: str = words.ESCAPE
    directives: dict[str, str] = {}


def parse(text: str) -> Dockerfile:
    """Raises DockerfileError for what is no Dockerfile."""
    lines = io.StringIO(text.removeprefix("\ufeff")).readlines()
    directives = _directives(lines)
    escape = directives.get("escape", words.ESCAPE)
    reader = _Reader(lines, escape)
    instructions = []
    while (found := reader.next()) is not None:
        instructions.append(found)
    if not instructions:
        raise DockerfileError("file with no instructions", 1, max(1, len(lines)))
    return Dockerfile(tuple(instructions), escape, directives)


def parse_line(text: str, *, first: int, last: int) -> Instruction:
    """One instruction with its heredocs, as ONBUILD keeps it, told to stand in these lines."""
    return msgspec.structs.replace(parse(text).instructions[0], first=first, last=last)


def _directives(lines: list[str]) -> dict[str, str]:
    """`# name=value` at the very top. The first line that is none, known or not, ends them."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None or directive[1].lower() not in _DIRECTIVES:
            break
        name, value = directive[1].lower(), directive[2]
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used", number, number)
        if name == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token {value!r} does not match ` or \\", number, number)
        found[name] = value
    return found


class _Reader:
    """Takes instructions off a list of lines."""

    def __init__(self, lines: list[str], escape: str) -> None:
        self._lines = lines
        self._escape = escape
        self._continued = re.compile(rf"(^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
        self._at = 0

    def next(self) -> Instruction | None:
        while self._at < len(self._lines):
            first = self._at + 1
            text = self._logical_line()
            if not text.strip():
                continue
            found = _instruction(text, self._escape, first, self._at, ())
            if "<<" in text and (wanted := _heredocs_of(found, self._escape, first)):
                heredocs = tuple(self._heredoc(each, first) for each in wanted)
                found = msgspec.structs.replace(found, heredocs=heredocs, last=self._at)
            return found
        return None

    def _logical_line(self) -> str:
        """The next line with those that continue it; empty for a comment."""
        text = self._take().lstrip()
        if text.startswith("#"):
            return ""
        text, ended = self._cut(text)
        while not ended and self._at < len(self._lines):
            more = self._take()
            if not more.strip() or more.lstrip().startswith("#"):
                continue
            more, ended = self._cut(more)
            text += more
        return text

    def _take(self) -> str:
        self._at += 1
        return self._lines[self._at - 1].rstrip("\r\n")

    def _cut(self, line: str) -> tuple[str, bool]:
        """The line without its continuation mark, and whether it had none."""
        found = self._continued.search(line)
        return (line, True) if found is None else (line[: found.start()] + found[1], False)

    def _heredoc(self, wanted: tuple[str, bool, int, bool], first: int) -> Heredoc:
        name, chomp, descriptor, expand = wanted
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            line = line.lstrip("\t") if chomp else line
            if line.rstrip("\r\n") == name:
                return Heredoc(name, "".join(content), descriptor, expand)
            content.append(line)
        raise DockerfileError(f"unterminated heredoc {name}", first, self._at)


def _instruction(text: str, escape: str, first: int, last: int, heredocs: tuple[Heredoc, ...]) -> Instruction:
    text = text.strip()
    parts = _BLANKS.split(text, maxsplit=1)
    keyword, rest = parts[0].upper(), parts[1].strip() if len(parts) > 1 else ""
    if keyword not in KEYWORDS:
        raise DockerfileError(f"unknown instruction: {parts[0][:100]}", first, last)
    flags, rest = _flags(rest, escape)
    command = rest if keyword in _JSON else ""
    if keyword == "HEALTHCHECK":
        kind, _, command = rest.partition(" ")
        command = command.strip() if kind.upper() == "CMD" else ""
    try:
        argv = _json(command)
        if keyword in _PAIRS:
            words.raw_pairs(rest, escape)
    except InvalidArgument as error:
        raise DockerfileError(error.message, first, last) from error
    return Instruction(keyword, flags, rest, argv, heredocs, text, first, last)


def _flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """`--name=value` words at the beginning, and what follows; `--` alone ends them."""
    flags = []
    while text.startswith("--"):
        word, at = _flag(text, escape)
        text = text[at:].lstrip()
        if word == "--":
            break
        flags.append(word)
    return tuple(flags), text


def _flag(text: str, escape: str) -> tuple[str, int]:
    """The first word without its quotes and escapes, and where it ends."""
    out, quote, at = "", "", 0
    while at < len(text) and (quote or text[at] not in " \t\v\f\r"):
        char = text[at]
        if char == escape and at + 1 < len(text):
            out, at = out + text[at + 1], at + 2
            continue
        if quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            out += char
        at += 1
    return out, at


def _json(text: str) -> tuple[str, ...] | None:
    """An array of strings; what is no array is a line for a shell."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not all(isinstance(each, str) for each in found):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(found)


def _heredocs_of(found: Instruction, escape: str, first: int) -> list[tuple[str, bool, int, bool]]:
    """(name, whether tabs go, descriptor, whether it is expanded) of each `<<NAME` in the line."""
    if found.keyword == "ONBUILD":
        found = _instruction(found.text, escape, first, first, ())
    if found.keyword not in _HEREDOCS or found.argv is not None:
        return []
    wanted = []
    for word in words.raw_words(found.text, escape):
        heredoc = _HEREDOC.fullmatch(word)
        if heredoc is None or not heredoc[3]:
            continue
        names = words.split(heredoc[3], {}, escape)
        if len(names) == 1 and names[0]:
            wanted.append((names[0], heredoc[2] == "-", int(heredoc[1] or 0), names[0] == heredoc[3]))
    return wanted
