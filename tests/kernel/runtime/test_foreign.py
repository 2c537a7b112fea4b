"""Containers that crun, runc or shoal-runtime run for the keeper: the same streams, codes, execs, and survival."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import CommandNotExecutable, CommandNotFound, Conflict
from tests.kernel.runtime.conftest import host_mounts

PROGRAMS = [
    path
    for path in (shutil.which("crun"), shutil.which("runc"), str(Path(sys.executable).with_name("shoal-runtime")))
    if path
]
pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: Path(path).name)]


async def test_streams_and_exit_codes_come_back(box: Any, program: str) -> None:
    config = box.config("sh", "-c", "cat; echo err >&2; exit 3")
    streams = await box.runtime.attach("c", stdin=True)
    await box.start(config, runtime=program, stdin=True)
    await streams.write(b"input\n")
    await streams.close_stdin()
    exit_, out, err = await box.drain(streams)
    assert (exit_.code, out, err) == (3, "input\n", "err\n")
    lines = [json.loads(line) for line in box.log().read_text().splitlines()]
    assert [(line["stream"], line["log"]) for line in lines] == [("stdout", "input\n"), ("stderr", "err\n")]


async def test_nothing_is_left_of_one_that_ended(box: Any, program: str) -> None:
    mounts = host_mounts(box)
    await box.output(box.config("true"), runtime=program)
    assert box.groups() == []
    assert not (box.run_dir / "keeper/c").exists()
    assert host_mounts(box) == mounts
    children = Path(f"/proc/{box.keeper}/task/{box.keeper}/children").read_text().split()
    assert len(children) <= 1  # the holder


async def test_a_command_that_cannot_be_run_is_told_as_ever(box: Any, program: str) -> None:
    with pytest.raises(CommandNotFound, match="nosuch"):
        await box.start(box.config("nosuch"), runtime=program)
    with pytest.raises(CommandNotExecutable):
        await box.start(box.config("/tmp"), runtime=program)
    assert box.groups() == []
    assert await box.runtime.list() == {}


async def test_terminals_belong_to_the_container(box: Any, program: str) -> None:
    exit_, out, _ = await box.output(box.config("sh", "-c", "tty; exit 4", terminal=True), runtime=program, tty=True)
    assert (exit_.code, out.split()) == (4, ["/dev/pts/0"])


async def test_exec_has_its_own_streams_terminal_and_code(box: Any, program: str) -> None:
    await box.start(box.config("sleep", "100"), runtime=program)
    script = ["sh", "-c", "cat /proc/1/comm; echo err >&2; exit 9"]
    streams = await box.runtime.exec("c", {"args": script}, stdin=False, tty=False)
    exit_, out, err = await box.drain(streams)
    assert (exit_.code, out, err) == (9, "sleep\n", "err\n")
    streams = await box.runtime.exec("c", {"args": ["tty"]}, stdin=True, tty=True, rows=5, columns=6)
    exit_, out, _ = await box.drain(streams)
    assert (exit_.code, out.split()) == (0, ["/dev/pts/0"])
    with pytest.raises(CommandNotFound):
        await box.runtime.exec("c", {"args": ["nosuch"]}, stdin=False, tty=False)


async def test_it_is_paused_counted_limited_and_killed(box: Any, program: str) -> None:
    await box.start(box.config("sh", "-c", "while :; do :; done"), runtime=program)
    assert len(await box.runtime.pids("c")) == 1
    assert (await box.runtime.usage("c")).pids == 1
    await box.runtime.pause("c")
    await box.runtime.resume("c")
    await box.runtime.update("c", {"pids": {"limit": 44}})
    groups = [group / "pids.max" for group in box.groups()]
    assert "44" in [path.read_text().strip() for path in groups if path.exists()]
    await box.runtime.signal("c", signal.SIGKILL)
    assert (await box.runtime.wait("c")).code == 137
    with pytest.raises(Conflict):
        await box.runtime.pause("c")


async def test_it_outlives_the_keeper_and_its_code_is_known(box: Any, program: str, tmp_path: Path) -> None:
    started = await box.start(
        box.config("sh", "-c", "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done"), runtime=program
    )
    await box.until(lambda: "up" in box.log().read_text(), "it runs")
    os.kill(box.keeper, signal.SIGKILL)
    assert set(await box.runtime.list()) == {"c"}
    streams = await box.runtime.exec("c", {"args": ["cat", "/proc/1/comm"]}, stdin=False, tty=False)
    assert (await box.drain(streams))[1] == "sh\n"
    os.kill(started.pid, signal.SIGTERM)
    exit_ = await box.runtime.wait("c")
    assert (exit_.code, exit_.known) == (6, True)
    assert "bye" in box.log().read_text()


async def test_orphans_of_the_hosts_pid_namespace_are_reaped(box: Any, program: str) -> None:
    config = box.config("sh", "-c", "(sleep 0.2 &) ; sleep 100")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    await box.start(config, runtime=program)
    await box.until(lambda: _children(box.keeper) <= 2, "the orphan is gone")  # the holder and the container


def _children(pid: int) -> int:
    return sum(len(path.read_text().split()) for path in Path(f"/proc/{pid}/task").glob("*/children"))
