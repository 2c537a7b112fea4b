"""Docker's grammar of a command line, checked before the parser of typer sees it.

Docker's flags (Go's pflag) differ from click's in what users notice: `--rm=false`, `-e=A=b`, the words of each
refusal, and exit code 125 for a bad flag but 1 for a wrong number of arguments. `normalise` is pure; `command`
calls it and hands typer a line that it cannot refuse, except for the value of a flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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


class Flag(NamedTuple):
    """`names` with their dashes. `negative` is what click calls the opposite of a switch; empty when it has none."""

    names: tuple[str, ...]
    takes_value: bool
    negative: str = ""


class Arity(NamedTuple):
    """How many arguments a command takes; `most` of None is no bound."""

    least: int
    most: int | None


def normalise(args: Sequence[str], flags: Iterable[Flag], *, interspersed: bool) -> list[str]:
    """`args` with every flag spelled the way click reads it, then "--" and the arguments.

    Without `interspersed` the first argument ends the flags, as in `run IMAGE COMMAND -x`. Raises UsageError.
    """
    walk = _Walk(list(args), {name: flag for flag in flags for name in flag.names})
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
    return [*walk.out, "--", *walk.arguments]


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
    def __init__(self, rest: list[str], known: dict[str, Flag]) -> None:
        self.rest = rest
        self.known = known
        self.out: list[str] = []
        self.arguments: list[str] = []

    def long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        flag = self.known.get(name)
        if flag is None:
            raise UnknownFlag(f"unknown flag: {name}", name)
        if not flag.takes_value:
            self.switch(flag, name, value if equals else "true")
            return
        if not equals and not self.rest:
            raise UsageError(f"flag needs an argument: {name}")
        self.out += [name, value if equals else self.rest.pop(0)]

    def short(self, word: str) -> None:
        for at, letter in enumerate(word[1:], start=1):
            name, after = f"-{letter}", word[at + 1 :]
            flag = self.known.get(name)
            if flag is None:
                raise UnknownFlag(f"unknown shorthand flag: '{letter}' in {word}", name)
            if flag.takes_value:
                if not after and not self.rest:
                    raise UsageError(f"flag needs an argument: '{letter}' in {word}")
                self.out += [name, after.removeprefix("=") if after else self.rest.pop(0)]
                return
            if after.startswith("="):
                self.switch(flag, name, after[1:])
                return
            self.out.append(name)

    def switch(self, flag: Flag, name: str, value: str) -> None:
        """A flag without a value of its own, given as `--rm`, `--rm=true` or `--rm=false`."""
        if _boolean(flag, value):
            self.out.append(name)
            return
        self.out = [each for each in self.out if each not in flag.names]
        if flag.negative:
            self.out.append(flag.negative)


def _boolean(flag: Flag, text: str) -> bool:
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise UsageError(
        f'invalid argument "{text}" for "{", ".join(flag.names)}" flag: '
        f'strconv.ParseBool: parsing "{text}": invalid syntax'
    )


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"
