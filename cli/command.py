"""A command: a typed function, what docker's grammar wants to know of it, and its help text.

`@command` stands on the function of a verb; `Command` reads a line by the function's annotations and calls it. Flags
that several verbs share are a `Flags` class: a parameter of such a type stands for all its attributes. A function whose
first parameter is a Client is run in an event loop, with the services of the daemon that the user chose.

    @command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal stop -t 3 web"])
    async def stop(client: Client, containers: Arguments, timeout: Annotated[int, flag("-t", "--timeout")] = 10): …

No framework stands below: to import one costs what a short command costs altogether, and docker's grammar, its layout
of help and its words have to be ours anyway.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from cli.client import Client
from cli.grammar import Arity, Flag, Line, UsageError, check_arity, read
from shoal.errors import InvalidArgument, ShoalError

if typing.TYPE_CHECKING:
    from cli.endpoint import Selection

_NO_DEFAULT: Any = object()


class Argument:
    """What stands in a line without a flag: one, or if its type is a list, all that are left."""


def argument() -> Any:
    """A parameter that is an argument; one with a default need not be given."""
    return Argument()


# One or more, or any number of, arguments of a command.
Arguments = Annotated[list[str], Argument()]


class Flags:
    """Flags that belong together. Each annotated attribute is one; its class value is the default."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Declaration(NamedTuple):
    """`usage` follows the command's name in its help. Without `interspersed`, flags end at the first argument. One that
    `runs` ends with the code of what it runs, and tells its own failures by their `run_code`."""

    usage: str
    examples: tuple[str, ...]
    interspersed: bool
    runs: bool


def command(
    usage: str, *, examples: Sequence[str] = (), interspersed: bool = True, runs: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say how a function is called from the command line; its docstring is the help text."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__dict__["declaration"] = Declaration(usage, tuple(examples), interspersed, runs)
        return function

    return declare


def flag(
    *names: str,
    help: str,
    metavar: str = "string",
    parse: Callable[[str], Any] | None = None,
    late: bool = False,
    hidden: bool = False,
) -> Any:
    """A flag by its names, dashes included. `parse` turns its text into a value and raises InvalidArgument; `late`:
    docker looks at the text only when it does the work, so that a wrong one is no wrong command line."""
    return Flag(names, takes_value=True, help=help, metavar=metavar, parse=parse, late=late, hidden=hidden)


def switch(*names: str, help: str, negative: str = "", hidden: bool = False) -> Any:
    """A flag without a value; `--name=false` says no, and so does `negative`."""
    return Flag(names, takes_value=False, help=help, negative=negative, hidden=hidden)


class Parameter(NamedTuple):
    """One value of a line: `many` of them, or the last. `group` is the parameter whose `Flags` it belongs to."""

    name: str
    source: Flag | Argument
    many: bool
    default: Any
    group: str = ""

    def value(self, line: Line, arguments: list[str]) -> Any:
        """Takes its share of `arguments` from their front. Raises UsageError for a text that is no value, and
        InvalidArgument where the flag is `late`."""
        if isinstance(self.source, Flag):
            given: list[Any] = [_parsed(self.source, each) for each in line.all(self.source)]
        else:
            given = arguments[: None if self.many else 1]
            del arguments[: len(given)]
        if self.many:
            return given or (list(self.default) if isinstance(self.default, list) else self.default)
        return given[-1] if given else self.default


class Reader:
    """Reads lines for some parameters. Whoever has them has `--help` as well, and `-h` if it is not one of theirs."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        own = [each.source for each in parameters if isinstance(each.source, Flag)]
        taken = any("-h" in each.names for each in own)
        self.help = Flag(("--help",) if taken else ("-h", "--help"), False, help="Show this message and exit.")
        self.flags = (*own, self.help)

    @classmethod
    def of(cls, kind: type[Flags]) -> Reader:
        """For the flags of a class."""
        return cls(list(_flags(kind)))

    def line(self, words: Sequence[str], *, interspersed: bool) -> Line:
        return read(words, self.flags, interspersed=interspersed)

    def values(self, line: Line) -> dict[str, Any]:
        """The value of each parameter by its name."""
        arguments = list(line.arguments)
        return {each.name: each.value(line, arguments) for each in self.parameters}

    def asks_help(self, line: Line) -> bool:
        return line.all(self.help)[-1:] == [True]

    def described(self) -> list[tuple[Flag, Any]]:
        """The flags that help shows, each with its default."""
        own = [(each.source, each.default) for each in self.parameters if isinstance(each.source, Flag)]
        return [(flag, default) for flag, default in [*own, (self.help, None)] if not flag.hidden]


class Command:
    """A function as the command at `path` ("shoal container ls"); all `aliases` are paths, too."""

    def __init__(self, path: str, function: Callable[..., Any], *, aliases: Sequence[str] = ()) -> None:
        self.path = path
        self.function = function
        self.aliases = aliases
        self.declaration: Declaration = function.__dict__["declaration"]
        self._hints = typing.get_type_hints(function, include_extras=True)
        self._groups = {name: hint for name, hint in self._hints.items() if _is_flags(hint)}
        self.reader = Reader(list(_parameters(function, self._hints)))

    def run(self, words: Sequence[str], selection: Selection) -> Any:
        """Do what the words after the command's name say; None or an exit code. Raises ShoalError, whose `exit_code`
        is what the command then ends with."""
        try:
            line = self.reader.line(words, interspersed=self.declaration.interspersed)
            if self.reader.asks_help(line):
                print(self.help())
                return None
            check_arity(self.path, len(line.arguments), self.arity())
            return self._call(self._given(line), selection)
        except UsageError as error:
            error.path, error.usage = self.path, self.declaration.usage
            raise
        except ShoalError as error:
            if self.declaration.runs:
                error.exit_code = error.run_code
            raise

    def arity(self) -> Arity:
        """How many arguments the command takes."""
        arguments = [each for each in self.reader.parameters if isinstance(each.source, Argument)]
        least = sum(1 for each in arguments if each.default is _NO_DEFAULT)
        return Arity(least, None if any(each.many for each in arguments) else len(arguments))

    def help(self) -> str:
        from cli import help as layout  # for who asks

        return layout.command(
            self.path,
            usage=self.declaration.usage,
            text=layout.sentences(self.function),
            examples=self.declaration.examples,
            aliases=self.aliases,
            flags=layout.lines(self.reader.described()),
        )

    def _given(self, line: Line) -> dict[str, Any]:
        own: dict[str, Any] = {}
        grouped: dict[str, dict[str, Any]] = {name: {} for name in self._groups}
        arguments = list(line.arguments)
        for each in self.reader.parameters:
            target = grouped[each.group] if each.group else own
            target[each.name] = each.value(line, arguments)
        return own | {name: kind(**grouped[name]) for name, kind in self._groups.items()}

    def _call(self, given: dict[str, Any], selection: Selection) -> Any:
        if "selection" in self._hints:
            given["selection"] = selection
        wants_client = self._hints.get("client") is Client
        result: Any = _with_client(self.function, selection, given) if wants_client else self.function(**given)
        if not isinstance(result, Coroutine):
            return result
        import asyncio  # help, completion and a refusal do without

        try:
            return asyncio.run(result)
        except asyncio.CancelledError as error:  # asyncio makes that of one SIGINT, unless others cancelled as well
            raise KeyboardInterrupt from error


def _parsed(flag: Flag, text: str | bool) -> Any:
    if flag.parse is None or not isinstance(text, str):
        return text
    try:
        return flag.parse(text)
    except InvalidArgument as error:
        message = f'invalid argument "{text}" for "{flag.shown}" flag: {error.message}'
        kind = InvalidArgument if flag.late else UsageError
        raise kind(message, hint=error.hint) from error


def _parameters(function: Callable[..., Any], hints: dict[str, Any]) -> Iterator[Parameter]:
    """In the order in which they are written."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    plain = function.__defaults__ or ()
    defaults = dict(zip(names[len(names) - len(plain) :], plain, strict=True))
    for name in names:
        if name in ("client", "selection"):
            continue
        if _is_flags(hints[name]):
            yield from (each._replace(group=name) for each in _flags(hints[name]))
        else:
            yield _parameter(name, hints[name], defaults.get(name, _NO_DEFAULT))


def _flags(kind: type[Flags]) -> Iterator[Parameter]:
    """The flags of a class and those of its bases, in the order in which they are written."""
    for base in reversed(kind.__mro__):
        if issubclass(base, Flags):
            hints = typing.get_type_hints(base, include_extras=True)
            for name in vars(base).get("__annotations__", ()):
                yield _parameter(name, hints[name], getattr(kind, name))


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    value, source = typing.get_args(hint)
    if not isinstance(source, Flag | Argument):
        raise TypeError(f"the parameter {name} is no flag, switch or argument but {source!r}")
    kinds = typing.get_args(value) if isinstance(value, types.UnionType) else (value,)
    return Parameter(name, source, any(typing.get_origin(each) is list for each in kinds), default)


def _is_flags(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Flags)


async def _with_client(function: Callable[..., Any], selection: Selection, given: dict[str, Any]) -> Any:
    async with Client(selection) as client:
        return await function(client, **given)
