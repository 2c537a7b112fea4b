"""The parser beside docker's own, which the wheel `dockerfile` wraps."""

from __future__ import annotations

from pathlib import Path

import dockerfile as official
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.build import parser
from agent.build.parser import DockerfileError, Instruction
from agent.image import words

SAMPLES = sorted((Path(__file__).parent / "dockerfiles").iterdir())


def flattened(found: Instruction, escape: str) -> tuple[object, ...]:
    """As the official parser tells it."""
    inner, sub = found, None
    if found.keyword == "ONBUILD":
        kept = "".join(f"\n{each.content}{each.name}" for each in found.heredocs)
        inner = parser.parse_line(found.text + kept, first=found.first, last=found.last)
        sub = inner.keyword
    # It keeps the tabs of <<- until later, and does not tell flags and heredocs of what follows ONBUILD.
    heredocs = tuple((each.name, each.descriptor, each.content) for each in found.heredocs if sub is None)
    return (
        found.keyword,
        sub,
        found.first,
        found.last,
        found.flags,
        _value(inner, escape),
        inner.argv is not None,
        heredocs,
    )


def _value(found: Instruction, escape: str) -> tuple[str, ...]:
    if found.keyword in ("ENV", "LABEL"):
        return _pairs(found, escape)
    if found.keyword == "ARG":
        return tuple(words.raw_words(found.text, escape))
    if found.keyword == "HEALTHCHECK":
        kind, _, rest = found.text.partition(" ")
        return (kind.upper(), *(found.argv or ((rest,) if rest else ())))
    if found.argv is not None:
        return found.argv
    if found.keyword in ("ADD", "COPY", "FROM", "EXPOSE", "VOLUME"):
        return found.words
    return (found.text,) if found.text else ()


def _pairs(found: Instruction, escape: str) -> tuple[str, ...]:
    each = words.raw_words(found.text, escape)
    if "=" not in each[0]:
        return tuple(found.text.split(None, 1))
    return tuple(part for word in each for part in word.split("=", 1))


def _chomped(each: official.Command, doc: official.Heredoc) -> str:
    lines = doc.content.splitlines(keepends=True)
    return "".join(line.lstrip("\t") for line in lines) if "<<-" in each.original else doc.content


def told(text: str) -> list[tuple[object, ...]] | None:
    """What the official parser says; None where it refuses."""
    try:
        found = official.parse_string(text)
    except official.GoParseError:
        return None
    return [
        (
            each.cmd.upper(),
            each.sub_cmd,
            each.start_line,
            each.end_line,
            each.flags,
            each.value,
            each.json,
            tuple((doc.name, doc.file_descriptor, _chomped(each, doc)) for doc in each.heredocs),
        )
        for each in found
        if each.cmd is not None  # a backslash that nothing follows
    ] or None


def check(text: str) -> None:
    expected = told(text)
    # An instruction that there is not is refused elsewhere there.
    if expected is None or any(each[0] not in parser.KEYWORDS for each in expected):
        with pytest.raises(DockerfileError):
            parser.parse(text)
        return
    found = parser.parse(text)
    assert [flattened(each, found.escape) for each in found.instructions] == expected


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_reads_a_dockerfile_as_dockers_own_parser_does(path: Path) -> None:
    text = path.read_bytes().decode()
    assert told(text) is not None
    check(text)


LINES = st.sampled_from(
    (
        "FROM a AS b",
        "from scratch",
        "RUN echo a \\",
        "  && echo b\\  ",
        "RUN --mount=type=cache,target=/x --network=none true",
        "RUN <<EOF",
        "RUN <<-'A B' cat",
        "COPY <<one <<two /x/",
        "EOF",
        "one",
        "\ttwo",
        "# comment",
        "   # comment",
        "",
        "   ",
        "# escape=`",
        "# syntax = docker/dockerfile:1",
        "ENV a=b c='d e' f=\\",
        "ENV a b  c",
        'LABEL "x y"=z',
        'CMD ["a", "b"]',
        "CMD [a]",
        'ENTRYPOINT ["a", 1]',
        'HEALTHCHECK --interval=1s CMD ["x"]',
        "HEALTHCHECK NONE",
        "ONBUILD RUN true",
        "VOLUME /a /b",
        'COPY --chown="a b" ["c d", "e"]',
        "EXPOSE 1 2/udp `",
        "ARG A=b C",
        "FOO bar",
        "\\",
    )
)


@settings(max_examples=400)
@given(st.lists(LINES, min_size=1, max_size=9), st.sampled_from(("\n", "\r\n")))
def test_reads_any_lines_as_dockers_own_parser_does(lines: list[str], ending: str) -> None:
    check(ending.join([*lines, ""]))


def test_says_in_which_lines_the_mistake_is() -> None:
    with pytest.raises(DockerfileError, match="unknown instruction: RUNN") as raised:
        parser.parse("FROM a\n\nRUNN a \\\n b\n")
    assert (raised.value.first, raised.value.last) == (3, 4)
    with pytest.raises(DockerfileError, match="unterminated heredoc EOF") as raised:
        parser.parse("FROM a\nRUN <<EOF\nx\n")
    assert raised.value.first == 2


def test_keeps_of_a_heredoc_whether_its_variables_are_replaced() -> None:
    found = parser.parse("FROM a\nCOPY <<a <<'b' <<-c /x/\n1\na\n2\nb\n\t3\nc\n").instructions[1]
    assert [(each.name, each.content, each.expand) for each in found.heredocs] == [
        ("a", "1\n", True),
        ("b", "2\n", False),
        ("c", "3\n", True),
    ]
