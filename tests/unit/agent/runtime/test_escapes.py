"""Lines are in JSON what they were, whatever characters they are of."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.escapes import escaped

ODD = "".join(map(chr, range(0x20))) + '"\\\x7fä€'


@given(st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"), max_size=100))
def test_lines_are_read_as_they_were_written(text: str) -> None:
    lines = escaped(text.encode())
    assert lines is not None
    assert json.loads(b'"' + lines.replace(b"\n", b"\\n") + b'"') == text


def test_each_character_is_escaped_wherever_it_stands() -> None:
    for each in ODD:
        for text in (each, f"\0{each}", "x" * 100 + each + "x" * 100):
            lines = escaped(text.encode())
            assert lines is not None
            assert json.loads(b'"' + lines.replace(b"\n", b"\\n") + b'"') == text


def test_what_is_no_text_is_not_escaped() -> None:
    assert escaped(b"plain\xff\n") is None
    assert escaped("ä".encode()[:-1] + b"\n") is None


def test_the_last_line_may_end_within_a_character() -> None:
    text = "all\nhalf a €".encode()[:-1]
    assert escaped(text) == text
