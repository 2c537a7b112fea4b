"""How a build is shown, line by line and on a terminal."""

from __future__ import annotations

import asyncio
import io
import re

import pytest

from cli.build.progress import Drawn, Plain, Progress, Quiet, progress, ticking
from shoal.errors import InvalidArgument
from shoal.v1.build_pb2 import BuildOutput, BuildStep, BuildStepEnd


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(shown: Progress, *, failed: bool = False) -> None:
    """Two steps at once: the first writes a torn line, the second ends without a newline."""
    shown.step(BuildStep(number=1, title="[1/2] FROM a"))
    shown.step(BuildStep(number=2, title="[2/2] RUN b"))
    shown.output(BuildOutput(number=1, data=b"one\nto"))
    shown.output(BuildOutput(number=2, data=b"  1%\r 50%\r100%", stderr=True))
    shown.output(BuildOutput(number=1, data=b"rn\n"))
    shown.step_end(BuildStepEnd(number=1, cached=True))
    shown.step_end(BuildStepEnd(number=2, taken_ns=1_260_000_000, failed=failed))
    shown.end(failed=failed)


def timeless(text: str) -> str:
    return re.sub(r"\d+\.\d{3} ", "T ", text)


def test_plain_lines_say_whose_they_are() -> None:
    out = io.StringIO()
    play(Plain(out))
    assert timeless(out.getvalue()) == (
        "#1 [1/2] FROM a\n#2 [2/2] RUN b\n#1 T one\n#1 T torn\n#1 CACHED\n\n#2 T 100%\n#2 DONE 1.3s\n\n"
    )


def test_what_failed_is_told_again_at_the_end() -> None:
    out = io.StringIO()
    play(Plain(out), failed=True)
    assert timeless(out.getvalue()).endswith("#2 ERROR\n\n------\n > [2/2] RUN b:\nT 100%\n------\n")


def test_a_quiet_build_says_what_failed_and_nothing_else() -> None:
    out = io.StringIO()
    play(Quiet(out))
    assert out.getvalue() == ""
    play(Quiet(out), failed=True)
    assert timeless(out.getvalue()) == "------\n > [2/2] RUN b:\nT 100%\n------\n"


def test_a_terminal_shows_a_line_per_step_and_the_last_lines_of_those_that_run() -> None:
    out = Terminal()
    shown = progress("auto", out)
    assert isinstance(shown, Drawn)
    play(shown)
    frames = out.getvalue().split("[+] Building ")
    assert any(" => => torn" in each for each in frames)
    assert " => => " not in frames[-1]
    assert " => CACHED [1/2] FROM a" in frames[-1]
    assert " => 1.3s [2/2] RUN b" in frames[-1]
    assert "(2/2)" in frames[-1]


def test_where_there_is_no_room_what_ended_first_is_left_out() -> None:
    out = Terminal()
    shown = progress("tty", out)
    for number in range(1, 40):
        shown.step(BuildStep(number=number, title=f"step {number}"))
        if number > 1:
            shown.step_end(BuildStepEnd(number=number))
    shown.tick()
    last = out.getvalue().split("[+] Building ")[-1]
    assert last.count("\n") == 23
    assert "step 1\n" in last and "step 2\n" not in last and "step 39\n" in last
    shown.end(failed=False)
    assert out.getvalue().split("[+] Building ")[-1].count("\n") == 40


async def test_the_time_goes_on_while_nothing_is_said() -> None:
    out = Terminal()
    shown = progress("tty", out)
    shown.step(BuildStep(number=1, title="RUN make"))
    async with asyncio.timeout(60), ticking(shown):
        while out.getvalue().count("… RUN make") < 3:
            await asyncio.sleep(0.01)


def test_elsewhere_lines_stay() -> None:
    assert isinstance(progress("auto", io.StringIO()), Plain)
    assert isinstance(progress("tty", io.StringIO()), Drawn)
    with pytest.raises(InvalidArgument):
        progress("fancy", io.StringIO())
