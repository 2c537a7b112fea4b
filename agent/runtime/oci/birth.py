"""`create`, `run` and `exec` as a command line asks for them: what makes a process inside a container.

Apart from `main`, since to import what a start takes is most of what another command would cost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.runtime import console
from agent.runtime.console import Console
from agent.runtime.failure import Failure
from agent.runtime.oci import create, ending, execution, foreground, release
from agent.runtime.oci.arguments import Line
from agent.runtime.oci.child import Child
from agent.runtime.oci.record import Place
from agent.runtime.oci.report import Report


def made(line: Line, place: Place, _: Report) -> int:
    config = create.configuration(Path(line.own.text("--bundle", ".")).resolve())
    create.create(place, config, _wish(line, config, attached=False))
    return 0


def run(line: Line, place: Place, report: Report) -> int:
    detached = line.own.given("--detach")
    config = create.configuration(Path(line.own.text("--bundle", ".")).resolve())
    wish = _wish(line, config, attached=not detached)
    born = create.create(place, config, wish)
    try:
        master = _master(wish.console, line)
        release.start(place, report)
        if detached:
            return 0
        code = foreground.wait(born, master)
    except BaseException:
        ending.delete(place, report, force=True)
        raise
    if not line.own.given("--keep"):
        ending.delete(place, report, force=True)
    return code


def _master(wanted: Console | None, line: Line) -> int:
    """Our end of the terminal, if it was not sent to somebody else."""
    return wanted.receive() if wanted is not None and not line.own.text("--console-socket") else -1


def execute(line: Line, place: Place, _: Report) -> int:
    detached = line.own.given("--detach")
    process = execution.process_of(place, line.own, line.words[1:])
    terminal = bool(process.get("terminal"))
    wanted = _console(line.own.text("--console-socket"), process, terminal=terminal, attached=not detached)
    preserved = _preserved(line, process)
    born: Child = execution.execute(place, execution.Wish(process, wanted, line.own.text("--pid-file"), preserved))
    return 0 if detached else foreground.wait(born, _master(wanted, line))


def _wish(line: Line, config: dict[str, Any], *, attached: bool) -> create.Wish:
    terminal = bool(config["process"].get("terminal"))
    return create.Wish(
        bundle=Path(line.own.text("--bundle", ".")).resolve(),
        console=_console(line.own.text("--console-socket"), config["process"], terminal=terminal, attached=attached),
        pid_file=line.own.text("--pid-file"),
        pivot=not line.own.given("--no-pivot"),
        keyring=not line.own.given("--no-new-keyring"),
        preserved=_preserved(line, config["process"]),
    )


def _console(path: str, process: Mapping[str, Any], *, terminal: bool, attached: bool) -> Console | None:
    """A terminal whose master goes to a socket that the caller names, or to us."""
    if not terminal:
        if path:
            raise Failure("InvalidArgument", "--console-socket is given, and process.terminal is not set")
        return None
    size = process.get("consoleSize") or {}
    rows, columns = size.get("height", 0), size.get("width", 0)
    if path:
        theirs = socket.socket(socket.AF_UNIX)
        theirs.connect(path)
        return Console(theirs.detach(), socket.socket(socket.AF_UNIX).detach(), rows, columns)
    if not attached:
        raise Failure("InvalidArgument", "process.terminal is set: a detached container needs --console-socket")
    ours = foreground.size()
    return console.new(rows or ours[0], columns or ours[1])


def _preserved(line: Line, process: dict[str, Any]) -> int:
    """Descriptors from 3 on that go to the process; those of socket activation are told to it as systemd does."""
    count, listening = line.own.number("--preserve-fds"), os.environ.get("LISTEN_FDS", "")
    if listening.isdigit():
        process["env"] = [*(process.get("env") or ()), f"LISTEN_FDS={listening}", "LISTEN_PID=1"]
        count += int(listening)
    for number in range(3, 3 + count):
        os.fstat(number)  # a descriptor that is not there would become one of ours
    return count
