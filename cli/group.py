"""Groups of commands whose members are imported when they are asked for, and not before.

The table is `registry.COMMANDS`; a path like "container ls" is a member "ls" of the group "container". What is refused
here is said in docker's words: unknown commands with what they may have meant.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli import eventloop
from cli.command import Command, Flags, Reader
from cli.grammar import Line, UsageError
from cli.registry import CLUSTER, COMMANDS, COMMON, EXAMPLES, GROUPS, MANAGEMENT, NOT_YET, OTHER

if TYPE_CHECKING:
    from cli.endpoint import Selection

PROGRAM = "shoal"


class Group:
    """A group by its path in the registry; the root's is ""."""

    def __init__(self, path: str, text: str, flags: type[Flags] = Flags) -> None:
        self.path = path
        self.text = text
        self.reader = Reader.of(flags)

    @property
    def title(self) -> str:
        return f"{PROGRAM} {self.path}".strip()

    def line(self, words: Sequence[str]) -> Line:
        """What the words after the group's name say. Raises UsageError."""
        try:
            return self.reader.line(words, interspersed=False)
        except UsageError as error:
            error.path, error.usage = self.title, "COMMAND" if self.path else "[OPTIONS] COMMAND"
            raise

    def run(self, line: Line, selection: Selection) -> Any:
        """Do what a line says; None or an exit code. Without a verb it prints its help. Raises UsageError."""
        if self.reader.asks_help(line):
            print(self.help())
            return None
        if not line.arguments:  # as docker: the root's help is an answer, that of another group a remark
            print(self.help(), file=sys.stderr if self.path else sys.stdout)
            return None
        name, *rest = line.arguments
        if not self.path and name == "help":
            return self.run(self.line([*rest, "--help"]), selection)
        if f"{self.path} {name} {' '.join(rest[:1])}" in COMMANDS:  # a verb that has verbs of its own
            name, rest = f"{name} {rest[0]}", rest[1:]
        path = f"{self.path} {name}".strip()
        if path in COMMANDS:
            return load(path).run(rest, selection)
        if path in GROUPS:
            below = Group(path, GROUPS[path].text)
            return below.run(below.line(rest), selection)
        raise self._unknown(path)

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

    def help(self) -> str:
        from cli import help as layout  # for who asks

        return layout.group(
            self.title,
            text=self.text,
            examples=EXAMPLES.get(self.path, ()),
            sections=self.members(),
            flags=[] if self.path else layout.lines(self.reader.described()),
        )

    def _unknown(self, path: str) -> UsageError:
        shown = f"{PROGRAM} {path}"
        if path in NOT_YET:
            error = UsageError(f"'{shown}' is not supported yet", hint=NOT_YET[path], exit_code=1)
        else:
            import difflib  # for who mistypes

            names = sorted(name for rows in self.members().values() for name, _ in rows)
            near = difflib.get_close_matches(path.rpartition(" ")[2], names, n=2, cutoff=0.6)
            hint = "did you mean " + " or ".join(f"'{each}'" for each in near) + "?" if near else ""
            error = UsageError(f"unknown command: {shown}", hint=hint, exit_code=1)
        error.path = self.title
        return error


@functools.cache
def load(path: str) -> Command:
    """Import and make the command at a path of the registry."""
    entry = COMMANDS[path]
    module, _, name = entry.function.partition(":")
    eventloop.prepare()
    function = getattr(importlib.import_module(module), name)
    aliases = [f"{PROGRAM} {other}" for other, each in COMMANDS.items() if each.function == entry.function]
    ordered = sorted(aliases, key=lambda text: (-len(text), text))
    return Command(f"{PROGRAM} {path}", function, aliases=ordered)
