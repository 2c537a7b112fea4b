"""Docker's grammar of a command line.

Docker's flags are those of Go's pflag: `--rm=false`, `-e=A=b`, `-itu root`, the last of several counts, the words of
each refusal, and exit code 125 for a bad flag but 1 for a wrong number of arguments. Pure; `command` makes values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from shoal.errors import ShoalError


class UsageError(ShoalError):
    """The command line itself is wrong. `path` and `usage` say of which command, once known."""

    exit_code = 125

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 125) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.path = ""
        self.usage = ""


class UnknownFlag(UsageError):
    """`flag` is what was typed, dashes included, without a value."""

    def __init__(self, message: str, flag: str) -> None:
        super().__init__(message)
        self.flag = flag


@contextlib.contextmanager
def beforehand() -> Iterator[None]:
    """What docker finds before it turns to a container or its image ends with 1 also for who `runs` one."""
    try:
        yield
    except ShoalError as error:
        error.run_code = error.exit_code
        raise


class Flag(NamedTuple):
    """`names` with their dashes. `negative` is another name, which says no to a switch. `parse` makes a value of the
    text and raises InvalidArgument, `late` or not (see `command.flag`); `metavar` is what the help calls it."""

    names: tuple[str, ...]
    takes_value: bool
    help: str = ""
    negative: str = ""
    metavar: str = "string"
    parse: Callable[[str], Any] | None = None
    late: bool = False
    hidden: bool = False

    @property
    def shown(self) -> str:
        return ", ".join(self.names)


class Line(NamedTuple):
    """A line that was read: the first name of each flag that was given → its texts, of a switch whether it is on."""

    given: dict[str, list[str | bool]]
    arguments: list[str]

    def all(self, flag: Flag) -> list[str | bool]:
        return self.given.get(flag.names[0], [])


class Arity(NamedTuple):
    """How many arguments a command takes; `most` of None is no bound."""

    least: int
    most: int | None


def read(words: Sequence[str], flags: Iterable[Flag], *, interspersed: bool) -> Line:
    """Tell flags from arguments. Without `interspersed` the first argument ends the flags (`run IMAGE COMMAND -x`).

    Raises UsageError.
    """
    walk = _Walk(list(words), flags)
    while walk.rest:
        word = walk.rest.pop(0)
        if word == "--":
            walk.arguments += walk.rest
            break
        if word.startswith("--"):
            walk.long(word)
        elif word.startswith("-") and len(word) > 1:
            walk.short(word)
        else:
            walk.arguments.append(word)
            if not interspersed:
                walk.arguments += walk.rest
                break
    return Line(walk.given, walk.arguments)


def check_arity(path: str, count: int, arity: Arity) -> None:
    """Raise UsageError in docker's words when a command at `path` was given the wrong number of arguments."""
    if arity.least <= count and (arity.most is None or count <= arity.most):
        return
    if arity.most == 0:
        raise UsageError(f"'{path}' accepts no arguments", exit_code=1)
    if arity.most is None:
        wanted = f"at least {_arguments(arity.least)}"
    elif arity.most == arity.least:
        wanted = _arguments(arity.least)
    elif arity.least:
        wanted = f"at least {arity.least} and at most {_arguments(arity.most)}"
    else:
        wanted = f"at most {_arguments(arity.most)}"
    raise UsageError(f"'{path}' requires {wanted}", exit_code=1)


class _Walk:
    def __init__(self, rest: list[str], flags: Iterable[Flag]) -> None:
        self.rest = rest
        self.given: dict[str, list[str | bool]] = {}
        self.arguments: list[str] = []
        self._known: dict[str, Flag] = {}
        for flag in flags:
            self._known |= dict.fromkeys(flag.names, flag)
            if flag.negative:
                self._known[flag.negative] = flag

    def long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        flag = self._known.get(name)
        if flag is None:
            raise UnknownFlag(f"unknown flag: {name}", name)
        if not flag.takes_value:
            self._switch(flag, name, value if equals else "true")
            return
        if not equals and not self.rest:
            raise UsageError(f"flag needs an argument: {name}")
        self._take(flag, value if equals else self.rest.pop(0))

    def short(self, word: str) -> None:
        for at, letter in enumerate(word[1:], start=1):
            name, after = f"-{letter}", word[at + 1 :]
            flag = self._known.get(name)
            if flag is None:
                raise UnknownFlag(f"unknown shorthand flag: '{letter}' in {word}", name)
            if flag.takes_value:
                if not after and not self.rest:
                    raise UsageError(f"flag needs an argument: '{letter}' in {word}")
                self._take(flag, after.removeprefix("=") if after else self.rest.pop(0))
                return
            if after.startswith("="):
                self._switch(flag, name, after[1:])
                return
            self._switch(flag, name, "true")

    def _switch(self, flag: Flag, name: str, value: str) -> None:
        """A flag without a value of its own, given as `--rm`, `--rm=true` or `--rm=false`."""
        self._take(flag, _boolean(flag, value) is not (name == flag.negative))

    def _take(self, flag: Flag, value: str | bool) -> None:
        self.given.setdefault(flag.names[0], []).append(value)


def _boolean(flag: Flag, text: str) -> bool:
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise UsageError(
        f'invalid argument "{text}" for "{flag.shown}" flag: strconv.ParseBool: parsing "{text}": invalid syntax'
    )


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"
