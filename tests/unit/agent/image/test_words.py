"""Words and variables, by the table of docker's builder (its documentation, "Environment replacement")."""

from __future__ import annotations

import pytest

from agent.image.words import expand, raw_pairs, raw_words, split
from shoal.errors import InvalidArgument

HELD = {"A": "abc.d.abc", "B": "two words", "E": "", "N": "A"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$A", "abc.d.abc"),
        ("${A}x$B", "abc.d.abcxtwo words"),
        ("$missing.", "."),
        (r"\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A \\" \\x"', 'abc.d.abc " \\x'),
        ("a$", "a$"),
        ("$$A", "A"),  # $$ is a name that nothing has
        ("${E:-default}${E-other}", "default"),
        ("${missing-other}${missing:-$B}", "othertwo words"),
        ("${A:+set}${E:+set}${E+set}${missing+set}", "setset"),
        ("${missing:-${A:+'deep }'}}", "deep }"),
        ("${A#abc}", ".d.abc"),
        ("${A#*.}", "d.abc"),
        ("${A##*.}", "abc"),
        ("${A%.*}", "abc.d"),
        ("${A%%.*}", "abc"),
        ("${A%x}", "abc.d.abc"),
        ("${A#a?c}", ".d.abc"),
        (r"${A#\*}", "abc.d.abc"),
        ("${A/abc/X}", "X.d.abc"),
        ("${A//abc/X}", "X.d.X"),
        ("${A//a*d/}", ".abc"),
        ("${A/b}", "ac.d.abc"),
    ],
)
def test_a_variable_becomes_its_value(text: str, expected: str) -> None:
    assert expand(text, HELD) == expected


@pytest.mark.parametrize("text", ["${A", "${}", "${:-x}", "${A:?", "${A^}", "'open", '"open', "${missing:?say}"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        expand(text, HELD)


def test_a_missing_variable_is_refused_in_the_words_that_were_given() -> None:
    with pytest.raises(InvalidArgument, match="missing: say so"):
        expand("${missing:?say so}", HELD)
    assert expand("${A:?no}", HELD) == HELD["A"]


def test_blanks_of_a_value_separate_nothing() -> None:
    assert split("$B \"a b\"c '' d\\ e", HELD) == ["two words", "a bc", "", "d e"]


def test_another_character_may_escape() -> None:
    assert expand("c:\\$N`$x", HELD, "`") == "c:\\A$x"
    assert split("c:\\ d` e", HELD, "`") == ["c:\\", "d e"]


def test_raw_words_keep_their_quotes() -> None:
    assert raw_words('a="b c"  d\\ e \'f "g\'') == ['a="b c"', "d\\ e", "'f \"g'"]
    assert raw_pairs("a=b 'c d'=e=f") == [("a", "b"), ("'c d'", "e=f")]
    assert raw_pairs("a the  rest") == [("a", "the  rest")]
    with pytest.raises(InvalidArgument, match="must have two arguments"):
        raw_pairs("a")
    with pytest.raises(InvalidArgument, match="can't find = in 'c'"):
        raw_pairs("a=b c")
