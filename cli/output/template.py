"""Docker's `--format`: the subset of Go's text/template that people use, run over plain values. `syntax` parses it.

Understood: fields, indexes into maps by field syntax, pipelines, parentheses, variables, literals, if/else, with,
range/else, break, continue, comments and `{{-` trimming. Not understood, and refused: define, template, block.
Values are None, bool, int, float, str, list, dict; `functions` has the functions and how a value is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.output import functions
from cli.output.syntax import (
    Branch,
    Dot,
    Function,
    Literal,
    Output,
    Parser,
    Pipe,
    TemplateError,
    Text,
    Variable,
    split,
)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template. `text` with `render(value)`; the same one may be rendered many times."""

    def __init__(self, text: str) -> None:
        self._parser = Parser(list(split(text)))
        self._nodes = self._parser.block(top=True)

    def render(self, value: Any) -> str:
        """The text for `value`; raises TemplateError for a field that is not there."""
        out: list[str] = []
        _Run(out, value).nodes(self._nodes, value)
        return "".join(out)

    def fields(self) -> set[str]:
        """The names that it reads from the value itself, for headers and for refusals."""
        return self._parser.read


class _Run:
    def __init__(self, out: list[str], root: Any) -> None:
        self.out = out
        self.variables: list[dict[str, Any]] = [{"$": root}]

    def nodes(self, nodes: list[Any], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self.out.append(node.text)
            elif isinstance(node, Output):
                value = self.pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self.out.append(functions.shown(value))
            elif isinstance(node, Branch):
                self.scoped(self.branch, node, dot)
            elif node.word == "break":
                raise _Break
            else:
                raise _Continue

    def scoped(self, run: Callable[[Any, Any], None], node: Any, dot: Any) -> None:
        self.variables.append({})
        try:
            run(node, dot)
        finally:
            self.variables.pop()

    def branch(self, node: Branch, dot: Any) -> None:
        if node.word == "range":
            self.loop(node, dot)
            return
        value = self.pipe(node.pipe, dot)
        if functions.truth(value):
            self.nodes(node.body, value if node.word == "with" else dot)
        else:
            self.nodes(node.otherwise, dot)

    def loop(self, node: Branch, dot: Any) -> None:
        value = self.pipe(node.pipe._replace(variables=()), dot)
        if isinstance(value, dict):
            pairs: list[tuple[Any, Any]] = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, list | tuple):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(each, each) for each in range(value)]
        elif value is None:
            pairs = []
        else:
            raise TemplateError(f"template: range can't iterate over {functions.shown(value)}")
        names = node.pipe.variables
        for key, each in pairs:
            bound = dict(zip(names, (key, each) if len(names) == 2 else (each,), strict=False))
            self.variables.append(bound)
            try:
                self.nodes(node.body, each)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                self.variables.pop()
        if not pairs:
            self.nodes(node.otherwise, dot)

    def pipe(self, pipe: Pipe, dot: Any) -> Any:
        value: Any = None
        for at, command in enumerate(pipe.commands):
            value = self.command(command, dot, [value] if at else [])
        for name in pipe.variables:
            self.bind(name, value, assigns=pipe.assigns)
        return value

    def bind(self, name: str, value: Any, *, assigns: bool) -> None:
        scope = (
            next((each for each in reversed(self.variables) if name in each), None) if assigns else self.variables[-1]
        )
        if scope is None:
            raise TemplateError(f"template parsing error: undefined variable {name!r}")
        scope[name] = value

    def command(self, command: list[Any], dot: Any, piped: list[Any]) -> Any:
        head = command[0]
        if isinstance(head, Function):
            if head.name in ("and", "or"):
                return self.shortcut(head.name, command[1:], dot, piped)
            arguments = [self.operand(each, dot) for each in command[1:]] + piped
            return functions.call(head.name, arguments)
        if len(command) == 1 and not piped:
            return self.operand(head, dot)
        value = self.operand(head, dot, callable_too=True)
        if isinstance(value, functions.Method):  # such as `.Label "key"`
            return value([self.operand(each, dot) for each in command[1:]] + piped)
        raise TemplateError(f"template: can't give argument to non-function {functions.shown(value)}")

    def shortcut(self, name: str, operands: list[Any], dot: Any, piped: list[Any]) -> Any:
        value: Any = None
        for each in [*operands, *map(Literal, piped)]:
            value = self.operand(each, dot)
            if functions.truth(value) == (name == "or"):
                return value
        return value

    def operand(self, node: Any, dot: Any, *, callable_too: bool = False) -> Any:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Variable):
            for scope in reversed(self.variables):
                if node.name in scope:
                    return scope[node.name]
            raise TemplateError(f"template parsing error: undefined variable {node.name!r}")
        if isinstance(node, Pipe):
            return self.pipe(node, dot)
        if isinstance(node, Function):
            return self.command([node], dot, [])
        value = dot if node.base is None else self.operand(node.base, dot)
        for name in node.names:
            value = functions.field(value, name)
        if isinstance(value, functions.Method) and not callable_too:
            return value([])
        return value
