"""A command: a typed function, what docker's grammar wants to know of it, and its help text.

`@command` stands on the function of a verb; `build` turns such a function into what typer runs. Flags that
several verbs share are a `Flags` class: a parameter of such a type stands for all its attributes. A function whose
first parameter is a Client is run in an event loop, with a channel to the daemon that the user chose.

    @command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal stop -t 3 web"])
    async def stop(client: Client, containers: Arguments, timeout: Annotated[int, flag("-t", "--timeout")] = 10): …
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption
from typer.main import get_command

from cli import help as layout
from cli.client import Client
from cli.coercion import plain
from cli.grammar import Arity, Flag, UsageError, check_arity, normalise
from shoal.errors import InvalidArgument

if typing.TYPE_CHECKING:
    from cli.endpoint import Selection

# One or more, or any number of, arguments of a command.
Arguments = Annotated[list[str], typer.Argument()]


class Flags:
    """Flags that belong together. Each annotated attribute is one; its class value is the default."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Declaration(NamedTuple):
    """`usage` follows the command's name in its help. Without `interspersed`, flags end at the first argument."""

    usage: str
    examples: tuple[str, ...]
    interspersed: bool


def command(
    usage: str, *, examples: Sequence[str] = (), interspersed: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say how a function is called from the command line; its docstring is the help text."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__dict__["declaration"] = Declaration(usage, tuple(examples), interspersed)
        return function

    return declare


def flag(
    *names: str, help: str, metavar: str = "string", parse: Callable[[str], Any] | None = None, hidden: bool = False
) -> Any:
    """A flag by its names, dashes included. `parse` turns its text into a value and raises InvalidArgument."""
    if parse is None:
        return typer.Option(*names, help=help, metavar=metavar, hidden=hidden)
    shown = ", ".join(names)

    def checked(text: Any) -> Any:
        if not isinstance(text, str):  # a default, which needs no reading
            return text
        try:
            return parse(text)
        except InvalidArgument as error:
            message = f'invalid argument "{text}" for "{shown}" flag: {error.message}'
            raise UsageError(message, hint=error.hint) from error

    return typer.Option(*names, help=help, metavar=metavar, parser=checked, hidden=hidden)


def switch(*names: str, help: str, hidden: bool = False) -> Any:
    """A flag without a value; `--name=false` says no."""
    return typer.Option(*names, help=help, hidden=hidden)


def build(name: str, function: Callable[..., Any], *, aliases: Sequence[str] = ()) -> TyperCommand:
    """What typer runs for `function`; its return value (None or an exit code) becomes the result."""
    declaration: Declaration = function.__dict__["declaration"]
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {"help_option_names": ["-h", "--help"]}
    app.command(name, cls=_Command, help=inspect.getdoc(function), context_settings=settings)(_flat(function))
    built = get_command(app)
    assert isinstance(built, _Command)
    built.declaration = declaration
    built.aliases = tuple(aliases)
    return built


class _Command(TyperCommand):
    declaration: Declaration
    aliases: tuple[str, ...] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # shell completion reads half a line
            return super().parse_args(ctx, args)
        try:
            plain(self.get_params(ctx))
            options = [each for each in self.get_params(ctx) if isinstance(each, TyperOption)]
            line = normalise(args, map(as_flag, options), interspersed=self.declaration.interspersed)
            if not {"-h", "--help"}.isdisjoint(line[: line.index("--")]) and _asks_help(line, options):
                line = ["--help", "--"]
            else:
                check_arity(ctx.command_path, len(line) - line.index("--") - 1, self.arity())
            return super().parse_args(ctx, line)
        except UsageError as error:
            error.path, error.usage = ctx.command_path, self.declaration.usage
            raise

    def arity(self) -> Arity:
        """How many arguments the command takes."""
        arguments = [each for each in self.params if isinstance(each, TyperArgument)]
        least = sum(1 for each in arguments if each.required)
        return Arity(least, None if any(each.nargs == -1 for each in arguments) else len(arguments))

    def get_help(self, ctx: Any) -> str:
        options = [each for each in self.get_params(ctx) if isinstance(each, TyperOption) and not each.hidden]
        return layout.command(
            ctx.command_path,
            usage=self.declaration.usage,
            text=self.help or "",
            examples=self.declaration.examples,
            aliases=self.aliases,
            flags=[layout.Line(each.opts, _metavar(each), each.help or "", _default(each)) for each in options],
        )


def _asks_help(line: list[str], options: list[TyperOption]) -> bool:
    """Whether `--help` stands there as a flag, not as the value of another."""
    asked = [each for each in options if "--help" in each.opts]
    words = iter(line[: line.index("--")])
    takes_value = {name for each in options if not each.is_flag for name in each.opts}
    for word in words:
        if any(word in each.opts for each in asked):
            return True
        if word in takes_value:
            next(words, None)
    return False


def as_flag(option: TyperOption) -> Flag:
    """What `grammar` needs to know of an option."""
    negative = option.secondary_opts[0] if option.secondary_opts else ""
    return Flag((*option.opts, *option.secondary_opts), not option.is_flag, negative)


def _metavar(option: TyperOption) -> str:
    return "" if option.is_flag else option.metavar or "string"


def _default(option: TyperOption) -> str:
    """What the help names as the default: nothing for "not given"."""
    value = option.default
    if value in (None, False, "", 0, -1) or value == [] or value == () or isinstance(value, bytes):
        return ""
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its Flags taken apart and its Client made, as typer can call it."""
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Flags)}
    wants_client = hints.get("client") is Client

    @functools.wraps(function)
    def call(ctx: typer.Context, **given: Any) -> Any:
        named = {name: given.pop(name) for name in list(hints) if name in given}
        for name, kind in groups.items():
            named[name] = kind(**{each: given.pop(each) for each, _ in _attributes(kind)})
        if wants_client:
            return asyncio.run(_with_client(function, ctx.obj, named))
        if "selection" in hints:
            named["selection"] = ctx.obj
        result = function(**named)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    del call.__dict__["__wrapped__"]  # else the signature of the function inside would be taken
    call.__dict__["__signature__"] = inspect.Signature(list(_parameters(function, hints, groups)))
    call.__annotations__ = {"ctx": typer.Context}
    return call


def _parameters(
    function: Callable[..., Any], hints: dict[str, Any], groups: dict[str, type[Flags]]
) -> Iterator[inspect.Parameter]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    yield inspect.Parameter("ctx", keyword, annotation=typer.Context)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("client", "selection"):
            continue
        if name in groups:
            for each, hint in _attributes(groups[name]):
                yield inspect.Parameter(each, keyword, annotation=hint, default=getattr(groups[name], each))
        else:
            yield inspect.Parameter(name, keyword, annotation=hints[name], default=parameter.default)


def _attributes(kind: type[Flags]) -> Iterator[tuple[str, Any]]:
    """The flags of a class and those of its bases, in the order they are written."""
    for base in reversed(kind.__mro__):
        if issubclass(base, Flags):
            yield from inspect.get_annotations(base, eval_str=True).items()


async def _with_client(function: Callable[..., Any], selection: Selection, named: dict[str, Any]) -> Any:
    async with Client(selection) as client:
        return await function(client, **named)
