"""What is logged is what was written, however it came in pieces."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.logfile import LINE_LIMIT, LogFile

ODD = [b'"', b"\\", b"\\n", b"\t", b"\x7f", *(bytes((each,)) for each in "ä".encode()), "ä\n".encode(), b"\xff\n"]
PIECES = st.lists(st.sampled_from([b"plain ", b"\n", *ODD]))


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


def test_a_rotation_that_was_cut_short_costs_no_older_file(tmp_path: Path) -> None:
    for name, text in {"log": "new\n", "log.2": "old\n", "log.3": "oldest\n"}.items():
        (tmp_path / name).write_text(text)
    log = LogFile(str(tmp_path / "log"), 1, 4)
    log.write(1, b"newest\n", 0)
    log.close()
    assert [(tmp_path / f"log.{number}").read_text() for number in (1, 2, 3)] == ["new\n", "old\n", "oldest\n"]


def test_the_file_that_a_rotation_drops_is_closed_by_who_has_time(tmp_path: Path) -> None:
    dropped: list[int] = []
    log = LogFile(str(tmp_path / "log"), 1, 2, discard=dropped.append)
    for line in (b"dropped\n", b"kept\n", b"current\n"):
        log.write(1, line, 0)
    log.close()
    assert [(os.fstat(fd).st_nlink, b"dropped" in os.read(fd, 100)) for fd in dropped] == [(0, True)]
    for fd in dropped:
        os.close(fd)
