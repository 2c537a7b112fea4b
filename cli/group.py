"""Groups of commands whose members are imported when they are asked for, and not before.

The table is `registry.COMMANDS`; a path like "container ls" is a member "ls" of the group "container". What the
parser refuses here is said in docker's words: unknown commands with what they may have meant.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from cli import help as layout
from cli.coercion import plain
from cli.command import as_flag, build
from cli.grammar import UsageError, normalise
from cli.registry import CLUSTER, COMMANDS, COMMON, EXAMPLES, GROUPS, MANAGEMENT, NOT_YET, OTHER, Entry

PROGRAM = "shoal"


class LazyGroup(TyperGroup):
    """A group by its path in the registry; the root's is ""."""

    path = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # shell completion reads half a line
            return super().parse_args(ctx, args)
        plain(self.get_params(ctx))
        options = [each for each in self.get_params(ctx) if isinstance(each, TyperOption)]
        try:
            line = normalise(args, map(as_flag, options), interspersed=False)
        except UsageError as error:
            error.path, error.usage = ctx.command_path, "COMMAND" if self.path else "[OPTIONS] COMMAND"
            raise
        alone = line[-1] == "--"  # the parser below eats the line
        rest = super().parse_args(ctx, line)
        if alone:
            typer.echo(self.get_help(ctx))
            ctx.exit()
        return rest

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        path = f"{self.path} {cmd_name}".strip()
        entry = COMMANDS.get(path)
        if entry is not None:
            return load(path, entry)
        return subgroup(path) if path in GROUPS else None

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return sorted(name for names in self.members().values() for name, _ in names)

    def members(self) -> dict[str, list[tuple[str, str]]]:
        """Section title → (name, sentence)."""
        prefix = f"{self.path} " if self.path else ""
        sections: dict[str, list[tuple[str, str]]] = {}
        paths = [*COMMANDS.items(), *GROUPS.items()]
        for path, entry in paths:
            name = path.removeprefix(prefix)
            if path.startswith(prefix) and " " not in name and not entry.hidden:
                sections.setdefault(OTHER if self.path else entry.section, []).append((name, entry.text))
        order = [COMMON, MANAGEMENT, CLUSTER, OTHER]
        return {title: sections[title] for title in order if title in sections}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if f"{self.path} {' '.join(args[:2])}" in COMMANDS:  # a verb that has verbs of its own
            name = " ".join(args[:2])
            return name, self.get_command(ctx, name), args[2:]
        found = self.get_command(ctx, name)
        if found is not None:
            return name, found, args[1:]
        path = f"{self.path} {name}".strip()
        shown = f"{PROGRAM} {path}"
        if path in NOT_YET:
            error = UsageError(f"'{shown}' is not supported yet", hint=NOT_YET[path], exit_code=1)
        else:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=2, cutoff=0.6)
            hint = "did you mean " + " or ".join(f"'{each}'" for each in near) + "?" if near else ""
            error = UsageError(f"unknown command: {shown}", hint=hint, exit_code=1)
        error.path = f"{PROGRAM} {self.path}".strip()
        raise error

    def get_help(self, ctx: Any) -> str:
        options = [each for each in self.get_params(ctx) if isinstance(each, TyperOption)] if not self.path else []
        return layout.group(
            ctx.command_path,
            text=self.help or "",
            examples=EXAMPLES.get(self.path, ()),
            sections=self.members(),
            flags=[layout.Line(o.opts, "" if o.is_flag else o.metavar or "string", o.help or "") for o in options],
        )


def subgroup(path: str) -> LazyGroup:
    """The group of a noun; without a verb it prints its help."""
    made = LazyGroup(
        name=path,
        help=GROUPS[path].text,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.path = path
    return made


def load(path: str, entry: Entry) -> TyperCommand:
    """Import and build one command."""
    module, _, name = entry.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    aliases = [f"{PROGRAM} {other}" for other, each in COMMANDS.items() if each.function == entry.function]
    return build(path.rsplit(" ", 1)[-1], function, aliases=sorted(aliases, key=lambda text: (-len(text), text)))
