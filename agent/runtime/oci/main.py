"""Where a command line arrives: read it, do what it says, report what went wrong, exit with runc's codes.

A command lives shorter than it takes to import all of them: each imports its own room.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.kernel import syscalls
from agent.runtime.failure import Failure
from agent.runtime.oci.arguments import COMMANDS, GLOBAL, Line, Options, parse, usage
from agent.runtime.oci.record import OCI_VERSION, Place
from agent.runtime.oci.report import Report, printed
from shoal import __version__

ROOT = "/run/shoal-runtime"
_FAILED = 1


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    report = Report()
    try:
        line = parse(argv)
        report = _report(line.options)
        return _run(line, report)
    except Failure as error:
        report.error(f"{error.message}; {error.hint}" if error.hint else error.message)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        report.error(f"{error.strerror or error}{where}")
    return _FAILED


def _report(options: Options) -> Report:
    form = options.text("--log-format", "text")
    if form not in ("text", "json"):
        raise usage(f"--log-format is text or json, not {form!r}")
    return Report(options.text("--log"), form == "json")


def _run(line: Line, report: Report) -> int:
    options = line.options
    if options.given("--version"):
        sys.stdout.write(f"shoal-runtime version {__version__}\nspec: {OCI_VERSION}\n")
        return 0
    if options.given("--help") or line.own.given("--help") or not line.command:
        sys.stdout.write(_help(line.command))
        return 0
    if options.given("--systemd-cgroup") or options.text("--cgroup-manager", "cgroupfs") == "systemd":
        raise Failure(
            "Unsupported", "--systemd-cgroup is not supported by this runtime", "use the cgroup manager cgroupfs"
        )
    if options.text("--rootless", "auto") not in ("auto", "false"):
        raise Failure("Unsupported", "--rootless is not supported by this runtime", "run it as root")
    return _COMMANDS[line.command](line, Path(options.text("--root", ROOT)), report)


def _help(command: str) -> str:
    options = " ".join(f"[{name}]" for name in (COMMANDS[command] if command else GLOBAL))
    return f"usage: shoal-runtime {command or f'{options} COMMAND'} {options if command else ''}\n" + (
        "" if command else f"commands: {' '.join(COMMANDS)}\n"
    )


def _place(line: Line, root: Path) -> Place:
    if not line.words:
        raise usage(f"{line.command} needs the id of a container")
    if len(line.words) > 1 and line.command not in ("exec", "kill", "ps"):
        raise usage(f"{line.command} takes one container, not {' '.join(line.words)}")
    return Place(root, line.words[0])


def _create(line: Line, root: Path, report: Report) -> int:
    from agent.runtime.oci import birth

    return birth.made(line, _place(line, root), report)


def _run_container(line: Line, root: Path, report: Report) -> int:
    from agent.runtime.oci import birth

    return birth.run(line, _place(line, root), report)


def _exec(line: Line, root: Path, report: Report) -> int:
    from agent.runtime.oci import birth

    return birth.execute(line, _place(line, root), report)


def _start(line: Line, root: Path, report: Report) -> int:
    from agent.runtime.oci import release

    release.start(_place(line, root), report)
    return 0


def _state(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import listing

    sys.stdout.write(printed(listing.container(_place(line, root))))
    return 0


def _kill(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import ending

    if len(line.words) > 2:
        raise usage("kill takes one container and one signal")
    number = _signal(line.words[1] if len(line.words) > 1 else "TERM")
    ending.kill(_place(line, root), number, everyone=line.own.given("--all"))
    return 0


def _signal(text: str) -> int:
    name = text.upper().removeprefix("SIG")
    try:
        number = int(text) if text.isdigit() else int(signal.Signals[f"SIG{name}"])
        if 0 < number <= signal.SIGRTMAX:
            return number
    except KeyError:
        pass
    raise usage(f"unknown signal {text!r}")


def _delete(line: Line, root: Path, report: Report) -> int:
    from agent.runtime.oci import ending

    ending.delete(_place(line, root), report, force=line.own.given("--force"))
    return 0


def _pause(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import ending

    ending.freeze(_place(line, root), frozen=line.command == "pause")
    return 0


def _update(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import ending

    ending.update(_place(line, root), line.own)
    return 0


def _ps(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import listing

    found = listing.pids(_place(line, root))
    as_json = _form(line.own, ("table", "json")) == "json"
    sys.stdout.write(printed(found) if as_json else listing.processes(found, line.words[1:]))
    return 0


def _events(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import events

    place, interval_s = _place(line, root), events.seconds(line.own.text("--interval", events.DEFAULT_INTERVAL))
    for text in [events.once(place)] if line.own.given("--stats") else events.watched(place, interval_s):
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def _list(line: Line, root: Path, _: Report) -> int:
    from agent.runtime.oci import listing

    form, rows = _form(line.own, ("table", "json")), listing.containers(root)
    if line.own.given("--quiet"):
        sys.stdout.write("".join(f"{row['id']}\n" for row in rows))
    else:
        sys.stdout.write(printed(rows) if form == "json" else listing.table(rows))
    return 0


def _form(options: Options, known: tuple[str, ...]) -> str:
    form = options.text("--format", known[0])
    if form not in known:
        raise usage(f"--format is {' or '.join(known)}, not {form!r}")
    return form


def _spec(line: Line, _root: Path, _: Report) -> int:
    from agent.runtime.oci import feature

    path = Path(line.own.text("--bundle", ".")) / "config.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(printed(feature.example()))
    except FileExistsError:
        raise Failure("Conflict", f"{path} exists", "remove it first") from None
    return 0


def _features(_line: Line, _root: Path, _: Report) -> int:
    from agent.runtime.oci import feature

    sys.stdout.write(printed(feature.features()))
    return 0


_COMMANDS: Mapping[str, Callable[[Line, Path, Report], int]] = {
    "create": _create,
    "run": _run_container,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": _exec,
    "ps": _ps,
    "events": _events,
    "pause": _pause,
    "resume": _pause,
    "update": _update,
    "list": _list,
    "spec": _spec,
    "features": _features,
}


def run() -> None:
    """The process itself."""
    syscalls.forbid_dumps()  # until its exec a child of ours is visible in the container, and is a copy of us
    syscalls.heed_internal_signals()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # what is ignored is inherited, whatever clone is told
        signal.signal(number, lambda _number, _frame: None)
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
