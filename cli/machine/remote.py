"""Commands on machines as hosts: a shell, files, one command on many. The first two are OpenSSH's own programs."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated, NoReturn

from cli.command import Arguments, argument, command, switch
from cli.container.lifecycle import complain
from cli.machine.listing import DEFAULT, Name, find_all
from cli.machine.reach import ReachFlags, StorageFlags
from cli.output.screen import write_stderr, write_stdout
from machine.record import Records
from shoal.errors import InvalidArgument, ShoalError, Unavailable


@command("[OPTIONS] [NAME] [COMMAND...]", examples=["shoal machine ssh n1 uptime"], interspersed=False)
def ssh(
    storage: StorageFlags,
    name: Name = DEFAULT,
    argv: Annotated[list[str], argument()] = [],  # noqa: B006
) -> None:
    """Log in to a machine, or run a command there, with ssh"""
    records = storage.records()
    records.get(name)
    _become("ssh", "-F", _config(records), name, *(["--", *argv] if argv else []))


@command(
    "[OPTIONS] [NAME:]SRC [NAME:]DEST",
    examples=["shoal machine scp -r n1:/var/log ./logs", "shoal machine scp n1:/a n2:/a"],
)
def scp(
    storage: StorageFlags,
    source: Annotated[str, argument()],
    target: Annotated[str, argument()],
    recursive: Annotated[bool, switch("-r", "--recursive", help="Copy folders with all that is in them")] = False,
    delta: Annotated[bool, switch("-d", "--delta", help="Send only what differs, with rsync")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Show no progress")] = False,
) -> None:
    """Copy files between this computer and machines, or from machine to machine through this computer"""
    records = storage.records()
    for text in (source, target):
        name, colon, _ = text.partition(":")
        if colon and "/" not in name:
            records.get(name)
    config = _config(records)
    if delta:
        if ":" in source and ":" in target:
            raise InvalidArgument("--delta copies between this computer and a machine", hint="leave it out")
        words = ["-az" if recursive else "-z", *([] if quiet else ["--progress"]), "-e", f"ssh -F '{config}'"]
        _become("rsync", *words, source, target)
    # -3: two machines need not know each other.
    _become("scp", "-3", "-F", config, *(["-r"] if recursive else []), *(["-q"] if quiet else []), source, target)


@command("[OPTIONS] NAME:PATH [DIR]", examples=["shoal machine mount n1:/srv ./srv"])
def mount(
    storage: StorageFlags,
    source: Annotated[str, argument()],
    folder: Annotated[str, argument()] = "",
    unmount: Annotated[bool, switch("-u", "--unmount", help="Unmount it instead")] = False,
) -> None:
    """Mount a folder of a machine here, with sshfs"""
    name, _, path = source.partition(":")
    records = storage.records()
    records.get(name)
    where = folder or path
    if not where:
        raise InvalidArgument("no folder was given", hint="say where to: shoal machine mount NAME:PATH DIR")
    if unmount:
        _become("fusermount", "-u", where)
    _become("sshfs", "-F", _config(records), source, where)


@command(
    "[OPTIONS] [NAME...] -- COMMAND [ARG...]",
    examples=["shoal machine exec n1 n2 -- uptime", "shoal machine exec -- df -h /"],
    interspersed=False,
)
def execute(reach: ReachFlags, words: Arguments) -> int:
    """Run a command as root on machines, side by side; on all of them when none is named

    Each line comes with the name of its machine. The exit code is that of the first machine that failed."""
    if "--" not in words:
        raise InvalidArgument("there is no -- before the command", hint="shoal machine exec NAME -- COMMAND")
    at = words.index("--")
    names, argv = words[:at], words[at + 1 :]
    if not argv:
        raise InvalidArgument("no command was given", hint="shoal machine exec NAME -- COMMAND")
    from machine.provision.step import Command

    records = find_all(reach.records(), names)
    width = max(len(each.machine.name) for each in records)
    with reach.fleet() as fleet:
        failed = fleet.dial(each.machine for each in records)
        there = [each.machine.name for each in records if each.machine.name not in failed]
        answers = fleet.each(there, lambda name: fleet.host(name).run(Command(tuple(argv)), timeout_s=600))
    code = 0
    for each in records:
        name = each.machine.name
        answer = failed.get(name) or answers[name]
        if isinstance(answer, ShoalError):
            code = code or complain(answer)
            continue
        for text, write in ((answer.stdout, write_stdout), (answer.stderr, write_stderr)):
            write("".join(f"{name:{width}}  {line}\n" for line in text.splitlines()).encode())
        code = code or answer.code
    return code


def _config(records: Records) -> str:
    from machine.sshfile import write

    return str(write(records))


def _become(program: str, *argv: str) -> NoReturn:
    """Let another program go on in this process's place, with its terminal and its exit code."""
    found = shutil.which(program)
    if found is None:
        raise Unavailable(f"{program} is not installed on this computer", hint="install it and try again")
    sys.stdout.flush()
    os.execv(found, [program, *argv])
