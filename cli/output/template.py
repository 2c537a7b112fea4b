"""Docker's `--format`: the subset of Go's text/template that people use, parsed and run over plain values.

Understood: fields, indexes into maps by field syntax, pipelines, parentheses, variables, literals, if/else, with,
range/else, break, continue, comments and `{{-` trimming. Not understood, and refused: define, template, block.
Values are None, bool, int, float, str, list, dict; `functions` has the functions and how a value is printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cli.output import functions
from shoal.errors import InvalidArgument

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\])+')
    | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+))
    | (?P<variable>\$\w*)
    | (?P<field>\.[^\W\d]\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>:=|[.()|,=])
    )""",
    re.VERBOSE,
)
_ACTION = re.compile(
    r"\{\{(?P<left>-(?=\s))?(?P<body>\s*/\*.*?\*/\s*|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|'(?:\\.|[^'\\])+'|.)*?)(?P<right>(?<=\s)-)?\}\}",
    re.DOTALL,
)
_SIMPLE_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    '"': '"',
    "'": "'",
    "\\": "\\",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


class TemplateError(InvalidArgument):
    """A template that cannot be parsed (exit code 64 in docker's own words: "template parsing error") or run."""

    exit_code = 1


class Token(NamedTuple):
    kind: str
    text: str


class _Text(NamedTuple):
    text: str


class _Output(NamedTuple):
    pipe: _Pipe


class _Branch(NamedTuple):
    """if, with or range."""

    word: str
    pipe: _Pipe
    body: list[Any]
    otherwise: list[Any]


class _Jump(NamedTuple):
    word: str


class _Pipe(NamedTuple):
    """`variables` are what it declares or sets; each command is a list of operands."""

    variables: tuple[str, ...]
    assigns: bool
    commands: list[list[Any]]


class _Field(NamedTuple):
    """`.A.B` after an operand, or after the dot when `base` is None."""

    base: Any
    names: tuple[str, ...]


class _Literal(NamedTuple):
    value: Any


class _Variable(NamedTuple):
    name: str


class _Function(NamedTuple):
    name: str


class _Dot(NamedTuple):
    pass


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template. `text` with `render(value)`; the same one may be rendered many times."""

    def __init__(self, text: str) -> None:
        self._parser = _Parser(list(_split(text)))
        self._nodes = self._parser.block(top=True)

    def render(self, value: Any) -> str:
        """The text for `value`; raises TemplateError for a field that is not there."""
        out: list[str] = []
        _Run(out, value).nodes(self._nodes, value)
        return "".join(out)

    def fields(self) -> set[str]:
        """The names that it reads from the value itself, for headers and for refusals."""
        return self._parser.read


def _split(text: str) -> Iterator[_Text | list[Token]]:
    """Text and the tokens of each action, in order."""
    at, trim = 0, False
    for found in _ACTION.finditer(text):
        plain = text[at : found.start()]
        plain = plain.lstrip() if trim else plain
        yield _Text(plain.rstrip() if found["left"] else plain)
        body = found["body"]
        if not body.strip().startswith("/*"):
            yield list(_tokens(body))
        at, trim = found.end(), bool(found["right"])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("template parsing error: unclosed action")
    yield _Text(rest.lstrip() if trim else rest)


def _tokens(body: str) -> Iterator[Token]:
    at = 0
    body = body.rstrip()
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None:
            raise TemplateError(f"template parsing error: unexpected {body[at:].strip()[:1]!r} in {body.strip()!r}")
        assert found.lastgroup is not None
        # ".A" behind a space is a new operand; glued to the last one it reads a field of it.
        glued = found.lastgroup == "field" and found[0] == found["field"] and at > 0
        yield Token("glued" if glued else found.lastgroup, found[found.lastgroup])
        at = found.end()


class _Parser:
    def __init__(self, parts: list[_Text | list[Token]]) -> None:
        self.parts = parts
        self.at = 0
        self.read: set[str] = set()
        self.ended_by = ""
        self.rest: list[Token] = []

    def block(self, *, top: bool = False) -> list[Any]:
        """Nodes up to the matching end or else, which is left in `ended_by`, with what follows it in `rest`."""
        nodes: list[Any] = []
        while self.at < len(self.parts):
            part = self.parts[self.at]
            self.at += 1
            if isinstance(part, _Text):
                nodes.append(part)
                continue
            if not part:
                raise TemplateError("template parsing error: missing value for command")
            word = part[0].text if part[0].kind == "word" else ""
            if word in ("end", "else"):
                if top:
                    raise TemplateError(f"template parsing error: unexpected {{{{{word}}}}}")
                self.ended_by, self.rest = word, part[1:]
                return nodes
            nodes.append(self.action(word, part))
        if not top:
            raise TemplateError("template parsing error: unexpected EOF")
        return nodes

    def action(self, word: str, tokens: list[Token]) -> Any:
        if word in ("if", "with", "range"):
            return self.branch(word, tokens[1:])
        if word in ("break", "continue") and len(tokens) == 1:
            return _Jump(word)
        if word in ("define", "template", "block"):
            raise TemplateError(f"template parsing error: {{{{{word}}}}} is not supported yet")
        return _Output(self.pipe(tokens))

    def branch(self, word: str, tokens: list[Token]) -> _Branch:
        pipe = self.pipe(tokens)
        body = self.block()
        otherwise: list[Any] = []
        if self.ended_by == "else":
            if self.rest and self.rest[0].text in ("if", "with"):
                otherwise = [self.branch(self.rest[0].text, self.rest[1:])]
                return _Branch(word, pipe, body, otherwise)
            otherwise = self.block()
            if self.ended_by != "end":
                raise TemplateError("template parsing error: expected end; found {{else}}")
        return _Branch(word, pipe, body, otherwise)

    def pipe(self, tokens: list[Token]) -> _Pipe:
        signs = [at for at, each in enumerate(tokens) if each.kind == "sign" and each.text in (":=", "=")]
        names: tuple[str, ...] = ()
        assigns = False
        if signs:
            head = tokens[: signs[0]]
            assigns = tokens[signs[0]].text == "="
            names = tuple(each.text for each in head if each.kind == "variable")
            tokens = tokens[signs[0] + 1 :]
        commands = list(self.commands(tokens))
        if not commands or not all(commands):
            raise TemplateError("template parsing error: missing value for command")
        return _Pipe(names, assigns, commands)

    def commands(self, tokens: list[Token]) -> Iterator[list[Any]]:
        command: list[Any] = []
        queue = list(tokens)
        while queue:
            token = queue.pop(0)
            if token.kind == "sign" and token.text == "|":
                yield command
                command = []
            elif token.kind == "glued":
                if not command:
                    raise TemplateError(f"template parsing error: unexpected {token.text!r}")
                command.append(_Field(command.pop(), (token.text[1:],)))
            else:
                command.append(self.operand(token, queue))
        yield command

    def operand(self, token: Token, queue: list[Token]) -> Any:
        if token.kind == "field":
            name = token.text[1:]
            self.read.add(name)
            return _Field(None, (name,))
        if token.kind == "variable":
            return _Variable(token.text)
        if token.kind in ("string", "char", "number"):
            return _Literal(_literal(token))
        if token.kind == "word":
            return self.word(token.text)
        if token.text == ".":
            return _Dot()
        if token.text == "(":
            return self.pipe(list(_inside(queue)))
        raise TemplateError(f"template parsing error: unexpected {token.text!r} in operand")

    def word(self, text: str) -> Any:
        if text in ("true", "false"):
            return _Literal(text == "true")
        if text == "nil":
            return _Literal(None)
        if text not in functions.FUNCTIONS and text not in ("and", "or"):
            raise TemplateError(f'template parsing error: function "{text}" not defined')
        return _Function(text)


def _inside(queue: list[Token]) -> Iterator[Token]:
    """The tokens up to the matching parenthesis, which is eaten."""
    depth = 1
    while queue:
        token = queue.pop(0)
        if token.kind == "sign":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return
        yield token
    raise TemplateError("template parsing error: unclosed left paren")


def _literal(token: Token) -> Any:
    text = token.text
    if token.kind == "number":
        try:
            return int(text, 0) if not re.search(r"[.eE]", text) or text[:2].lower() == "0x" else float(text)
        except ValueError as error:
            raise TemplateError(f"template parsing error: bad number syntax: {text!r}") from error
    if text.startswith("`"):
        return text[1:-1]
    plain = re.sub(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", _unescape, text[1:-1], flags=re.DOTALL)
    return ord(plain) if token.kind == "char" and len(plain) == 1 else plain


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _SIMPLE_ESCAPES.get(code, code)


class _Run:
    def __init__(self, out: list[str], root: Any) -> None:
        self.out = out
        self.variables: list[dict[str, Any]] = [{"$": root}]

    def nodes(self, nodes: list[Any], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, _Text):
                self.out.append(node.text)
            elif isinstance(node, _Output):
                value = self.pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self.out.append(functions.shown(value))
            elif isinstance(node, _Branch):
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

    def branch(self, node: _Branch, dot: Any) -> None:
        if node.word == "range":
            self.loop(node, dot)
            return
        value = self.pipe(node.pipe, dot)
        if functions.truth(value):
            self.nodes(node.body, value if node.word == "with" else dot)
        else:
            self.nodes(node.otherwise, dot)

    def loop(self, node: _Branch, dot: Any) -> None:
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

    def pipe(self, pipe: _Pipe, dot: Any) -> Any:
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
        if isinstance(head, _Function):
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
        for each in [*operands, *map(_Literal, piped)]:
            value = self.operand(each, dot)
            if functions.truth(value) == (name == "or"):
                return value
        return value

    def operand(self, node: Any, dot: Any, *, callable_too: bool = False) -> Any:
        if isinstance(node, _Literal):
            return node.value
        if isinstance(node, _Dot):
            return dot
        if isinstance(node, _Variable):
            for scope in reversed(self.variables):
                if node.name in scope:
                    return scope[node.name]
            raise TemplateError(f"template parsing error: undefined variable {node.name!r}")
        if isinstance(node, _Pipe):
            return self.pipe(node, dot)
        if isinstance(node, _Function):
            return self.command([node], dot, [])
        value = dot if node.base is None else self.operand(node.base, dot)
        for name in node.names:
            value = functions.field(value, name)
        if isinstance(value, functions.Method) and not callable_too:
            return value([])
        return value
