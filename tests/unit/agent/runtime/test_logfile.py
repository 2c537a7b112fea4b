"""What is logged is what was written, however it came in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.logfile import LogFile

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
