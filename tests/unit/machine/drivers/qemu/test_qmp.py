"""QMP against a peer that says what QEMU says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from machine.drivers.qemu import qmp
from shoal.errors import ShoalError, Unavailable


@contextmanager
def peer(path: Path, *answers: dict[str, Any]) -> Iterator[list[str]]:
    """It greets, and to every command gives the next answer, with an event before it; then it hangs up."""
    heard: list[str] = []
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(path))
    here.listen()

    def serve() -> None:
        link, _ = here.accept()
        with link, link.makefile("rw") as said:
            said.write('{"QMP": {"version": {}, "capabilities": []}}\n')
            for answer in answers:
                said.flush()
                heard.append(json.loads(said.readline())["execute"])
                said.write(f'{{"event": "RTC_CHANGE", "data": {{}}}}\n{json.dumps(answer)}\n')
            said.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    with here:
        yield heard
        thread.join()


def test_a_command_is_answered_behind_events(tmp_path: Path) -> None:
    with peer(tmp_path / "s", {"return": {}}, {"return": {}}) as heard, qmp.dial(tmp_path / "s") as said:
        said.execute("system_powerdown")
    assert heard == ["qmp_capabilities", "system_powerdown"]


def test_a_refusal_is_told(tmp_path: Path) -> None:
    refused = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
    with (
        peer(tmp_path / "s", {"return": {}}, refused),
        pytest.raises(ShoalError, match="refuses dance: no such command"),
        qmp.dial(tmp_path / "s") as said,
    ):
        said.execute("dance")


def test_who_is_not_there_or_hangs_up_does_not_answer(tmp_path: Path) -> None:
    assert not qmp.answers(tmp_path / "nobody")
    with peer(tmp_path / "s", {"return": {}}), pytest.raises(Unavailable), qmp.dial(tmp_path / "s") as said:
        said.execute("system_powerdown")
