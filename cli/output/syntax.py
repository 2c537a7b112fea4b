"""The syntax of `--format` templates: text becomes nodes. `template` runs them.

A parser reads actions one by one; the names that it reads from the value itself are kept, for headers and refusals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    """A template that cannot be parsed (in docker's own words: "template parsing error") or run."""


class Token(NamedTuple):
    kind: str
    text: str


class Text(NamedTuple):
    text: str


class Output(NamedTuple):
    pipe: Pipe


class Branch(NamedTuple):
    """if, with or range."""

    word: str
    pipe: Pipe
    body: list[Any]
    otherwise: list[Any]


class Jump(NamedTuple):
    word: str


class Pipe(NamedTuple):
    """`variables` are what it declares or sets; each command is a list of operands."""

    variables: tuple[str, ...]
    assigns: bool
    commands: list[list[Any]]


class Field(NamedTuple):
    """`.A.B` after an operand, or after the dot when `base` is None."""

    base: Any
    names: tuple[str, ...]


class Literal(NamedTuple):
    value: Any


class Variable(NamedTuple):
    name: str


class Function(NamedTuple):
    name: str


class Dot(NamedTuple):
    pass


def split(text: str) -> Iterator[Text | list[Token]]:
    """Text and the tokens of each action, in order."""
    at, trim = 0, False
    for found in _ACTION.finditer(text):
        plain = text[at : found.start()]
        plain = plain.lstrip() if trim else plain
        yield Text(plain.rstrip() if found["left"] else plain)
        body = found["body"]
        if not body.strip().startswith("/*"):
            yield list(_tokens(body))
        at, trim = found.end(), bool(found["right"])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("template parsing error: unclosed action")
    yield Text(rest.lstrip() if trim else rest)


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


class Parser:
    def __init__(self, parts: list[Text | list[Token]]) -> None:
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
            if isinstance(part, Text):
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
            return Jump(word)
        if word in ("define", "template", "block"):
            raise TemplateError(f"template parsing error: {{{{{word}}}}} is not supported yet")
        return Output(self.pipe(tokens))

    def branch(self, word: str, tokens: list[Token]) -> Branch:
        pipe = self.pipe(tokens)
        body = self.block()
        otherwise: list[Any] = []
        if self.ended_by == "else":
            if self.rest and self.rest[0].text in ("if", "with"):
                otherwise = [self.branch(self.rest[0].text, self.rest[1:])]
                return Branch(word, pipe, body, otherwise)
            otherwise = self.block()
            if self.ended_by != "end":
                raise TemplateError("template parsing error: expected end; found {{else}}")
        return Branch(word, pipe, body, otherwise)

    def pipe(self, tokens: list[Token]) -> Pipe:
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
        return Pipe(names, assigns, commands)

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
                command.append(Field(command.pop(), (token.text[1:],)))
            else:
                command.append(self.operand(token, queue))
        yield command

    def operand(self, token: Token, queue: list[Token]) -> Any:
        if token.kind == "field":
            name = token.text[1:]
            self.read.add(name)
            return Field(None, (name,))
        if token.kind == "variable":
            return Variable(token.text)
        if token.kind in ("string", "char", "number"):
            return Literal(_literal(token))
        if token.kind == "word":
            return self.word(token.text)
        if token.text == ".":
            return Dot()
        if token.text == "(":
            return self.pipe(list(_inside(queue)))
        raise TemplateError(f"template parsing error: unexpected {token.text!r} in operand")

    def word(self, text: str) -> Any:
        if text in ("true", "false"):
            return Literal(text == "true")
        if text == "nil":
            return Literal(None)
        if text not in functions.FUNCTIONS and text not in ("and", "or"):
            raise TemplateError(f'template parsing error: function "{text}" not defined')
        return Function(text)


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
