"""What is logged is what was written, however it came in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.logfile import LINE_LIMIT, LogFile

PIECES = st.lists(st.sampled_from([b"plain ", b"\n", b'"', b"\\", b"\\n", b"\t", b"\x7f", "ä\n".encode(), b"\xff\n"]))


@given(st.lists(PIECES.map(b"".join)))
def test_every_line_is_logged_as_it_was_written(chunks: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        log = LogFile(f"{folder}/log", 0, 1)
        for chunk in chunks:
            log.write(1, chunk, 0)
        log.flush(0)
        log.close()
        logged = [json.loads(line)["log"] for line in Path(folder, "log").read_bytes().splitlines()]
    assert "".join(logged) == b"".join(chunks).decode(errors="replace")
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in logged[:-1])


@given(st.lists(st.integers(LINE_LIMIT // 2 - 2, LINE_LIMIT + 2), min_size=1, max_size=6))
def test_a_line_that_is_too_long_is_cut_and_no_other(lengths: list[int]) -> None:
    with TemporaryDirectory() as folder:
        log = LogFile(f"{folder}/log", 0, 1)
        log.write(1, b"".join(b"x" * length + b"\n" for length in lengths), 0)
        log.close()
        logged = [json.loads(line)["log"] for line in Path(folder, "log").read_bytes().splitlines()]
    assert max(map(len, logged)) <= LINE_LIMIT
    assert [len(line) for line in "".join(logged).splitlines()] == lengths
    assert len(logged) == len(lengths) + sum(length >= LINE_LIMIT for length in lengths)
