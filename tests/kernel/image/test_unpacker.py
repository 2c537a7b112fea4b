"""The process that unpacks layers: one for several, gone with who started it, and told of when it ends early."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.image import layer
from agent.image.layer import Cancelled, Place, Unpacked
from agent.image.unpacker import Unpacker
from shoal.errors import ShoalError
from tests.kernel.image.conftest import archive, member

STARTER = """
import sys
from pathlib import Path
from agent.image.unpacker import Unpacker
unpacker = Unpacker()
wanted = {"upper": sys.argv[1], "work": "", "mount": "", "layers": "", "lower": (), "strict": True}
begun = unpacker.begin(wanted)
print(unpacker._process.pid, flush=True)
sys.stdin.read()
"""


def place(folder: Path) -> Place:
    made = Place(folder / "upper", folder / "work", folder / "mount", folder, ())
    for each in (made.upper, made.work, made.mount):
        each.mkdir(parents=True)
    return made


def unpack(unpacker: Unpacker, folder: Path, name: str, stop: threading.Event | None = None) -> Unpacked:
    blob = io.BytesIO(archive([(member(name), b"text")]))
    stop = stop or threading.Event()
    return layer.unpack(blob, place(folder), unpacker=unpacker, stop=stop, progress=lambda _: None, strict=True)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_each_layer_is_locked_into_its_own_folder(tmp_path: Path) -> None:
    with Unpacker() as unpacker:
        for name in ("a", "b"):
            assert unpack(unpacker, tmp_path / name, name).size_bytes == 4
    assert [(tmp_path / each / "upper" / each).read_text() for each in ("a", "b")] == ["text", "text"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a", "b"]


def test_an_unpacking_that_is_stopped_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with Unpacker() as unpacker:
        with pytest.raises(Cancelled):
            unpack(unpacker, tmp_path / "a", "a", stopped)
        assert unpack(unpacker, tmp_path / "b", "b").size_bytes == 4


def test_who_is_killed_while_it_unpacks_is_told_of(tmp_path: Path) -> None:
    with Unpacker() as unpacker:
        begun = unpacker.begin(
            {"upper": str(tmp_path), "work": "", "mount": "", "layers": "", "lower": (), "strict": True}
        )
        assert unpacker._process is not None
        (child,) = children(unpacker._process.pid)
        os.kill(child, signal.SIGKILL)
        assert begun.finish() == b""
        unpacker._process.kill()
        unpacker._process.wait()
        with pytest.raises(ShoalError, match="has ended"):
            unpack(unpacker, tmp_path / "b", "b")


def test_all_of_it_ends_with_who_started_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        process = int(starter.stdout.readline())
        watched = [os.pidfd_open(each) for each in (process, *children(process))]
        assert len(watched) == 2
        starter.kill()
    for each in watched:
        assert select.select([each], [], [], 60)[0]
        os.close(each)
