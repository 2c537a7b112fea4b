"""A container's pipe, between the container and its log."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from agent.runtime.flow import Flow
from agent.runtime.logfile import LogFile
from agent.runtime.loop import Loop
from agent.runtime.mark import Mark
from agent.runtime.stdio import Stdio, Streams
from agent.runtime.tap import Tap

USUAL, MORE = 1 << 16, 1 << 20


def test_a_pipe_is_wide_while_it_is_found_full(tmp_path: Path) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        for size in (MORE, USUAL):
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, size)
    except PermissionError:
        pytest.skip("this user's pipes hold too much already")
    stdio = Stdio(Loop(0), Flow(Tap()))
    stdio.open(Streams({reader: 1}, -1, -1), LogFile(str(tmp_path / "log"), 0, 1, mark=Mark()))
    readable = stdio._reader(reader)
    sizes = []
    for held in (64, USUAL, 64):
        os.write(writer, b"\n".rjust(64) * (held // 64))
        readable(0)
        sizes.append(fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ))
    os.close(writer)
    stdio.close()
    assert sizes[0] == sizes[2] == USUAL < sizes[1]
