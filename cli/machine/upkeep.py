"""Commands that keep machines in order: new certificates, and what sudo must allow."""

from __future__ import annotations

import re
from typing import Annotated

from cli.command import argument, command, flag, switch
from cli.container.lifecycle import complain
from cli.machine.listing import find_all
from cli.machine.reach import ReachFlags, StorageFlags
from shoal.errors import InvalidArgument, ShoalError

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}\$?", re.ASCII)


@command("[OPTIONS] [NAME...]", examples=["shoal machine regenerate-certs -f n1"])
def regenerate_certs(
    reach: ReachFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
    force: Annotated[bool, switch("-f", "--force", help="Do not ask; nothing is asked anyway")] = False,  # noqa: ARG001
) -> int:
    """Have machines exchange the certificates of their nodes for new ones, now; nothing restarts"""
    from machine.provision import layout
    from machine.provision.step import Command

    renew = Command(("env", "SHOAL_WARM=0", layout.SHOAL, "swarm", "renew"))
    records = find_all(reach.records(), names)
    with reach.fleet() as fleet:
        answers: dict[str, str | ShoalError] = dict(fleet.dial(each.machine for each in records))
        there = [each.machine.name for each in records if each.machine.name not in answers]
        answers |= fleet.each(there, lambda name: fleet.host(name).check(renew))
    code = 0
    for each in records:
        answer = answers[each.machine.name]
        if isinstance(answer, ShoalError):
            code = complain(answer)
        else:
            print(f"{each.machine.name}  {answer.strip()}")
    return code


@command("[OPTIONS] [NAME...]", examples=["shoal machine sudoers", "shoal machine sudoers --user deploy --password"])
def sudoers(
    storage: StorageFlags,
    names: Annotated[list[str], argument()] = [],  # noqa: B006
    user: Annotated[str, flag("-u", "--user", help="User to write it for (default: those that machines have)")] = "",
    password: Annotated[bool, switch("--password", help="Have sudo ask for the user's password")] = False,
) -> None:
    """Print what a host's /etc/sudoers.d/shoal-machine must say, so that machines are worked on by users but root"""
    users = (
        [user] if user else sorted({each.machine.ssh.user for each in storage.records().named(names)} - {"", "root"})
    )
    if not users:
        raise InvalidArgument("no machine has a user but root", hint="say which one with --user NAME")
    for each in users:
        if not _USER.fullmatch(each):
            raise InvalidArgument(f'"{each}" is no name of a user')
    print("# /etc/sudoers.d/shoal-machine, mode 0440; check it with: visudo -cf FILE")
    print("# One shell does all the work on a host: who may start it as root may do anything.")
    for each in users:
        print(f"Defaults:{each} !requiretty")
        print(f"{each} ALL=(root) {'' if password else 'NOPASSWD: '}/bin/sh, /usr/bin/sh")
