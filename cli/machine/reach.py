"""How the commands on machines reach their hosts: the flags that all of them share, and what is made of them.

paramiko is imported when a fleet is made, so that what dials nobody starts as fast as any other command.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Annotated

from cli.command import Flags, flag
from cli.parse.number import natural
from machine.record import Records
from shoal.errors import InvalidArgument

if TYPE_CHECKING:
    from machine.fleet import Fleet
    from machine.transport.connection import Rules

_MOST_SECRET_BYTES = 4096


class StorageFlags(Flags):
    """Where the records of machines are."""

    storage_path: Annotated[
        str, flag("-s", "--storage-path", help="Folder of the machines' records [$MACHINE_STORAGE_PATH]")
    ] = ""

    def records(self) -> Records:
        return Records.of_user(self.storage_path)


class ReachFlags(StorageFlags):
    """How hosts are reached."""

    parallel: Annotated[
        int, flag("--parallel", metavar="int", parse=natural, help="How many hosts are worked on at once")
    ] = 32
    ssh_config: Annotated[
        str, flag("--ssh-config", help="File to read instead of ~/.ssh/config and /etc/ssh/ssh_config")
    ] = ""
    host_keys: Annotated[
        str,
        flag(
            "--host-keys",
            help='Hosts that are not known yet: "strict" or "accept-new"; only what makes machines accepts by itself',
        ),
    ] = ""
    password_fd: Annotated[
        int | None, flag("--password-fd", metavar="int", parse=natural, help="Descriptor to read the password from")
    ] = None
    sudo_password_fd: Annotated[
        int | None,
        flag("--sudo-password-fd", metavar="int", parse=natural, help="Descriptor to read sudo's password from"),
    ] = None

    def rules(self, *, new: bool = False) -> Rules:
        """With `new`, hosts may be met for the first time."""
        from machine.transport.connection import Rules
        from machine.transport.credential import Credentials
        from machine.transport.hostkey import Policy

        policy = self.host_keys or ("accept-new" if new else "strict")
        if policy not in [each.value for each in Policy]:
            raise InvalidArgument(f'invalid --host-keys "{self.host_keys}"', hint='use "strict" or "accept-new"')
        credentials = Credentials(
            getpass.getpass if sys.stdin.isatty() else None,
            password=_secret(self.password_fd, "--password-fd"),
            sudo_password=_secret(self.sudo_password_fd, "--sudo-password-fd"),
        )
        return Rules(credentials, own_hosts=self.records().known_hosts, policy=Policy(policy))

    def fleet(self, *, new: bool = False) -> Fleet:
        from pathlib import Path

        from machine.fleet import Fleet
        from machine.transport.config import Config

        if self.parallel < 1:
            raise InvalidArgument("--parallel is 0", hint="give 1 or more")
        files = [Path(self.ssh_config)] if self.ssh_config else None
        if files and not files[0].is_file():
            raise InvalidArgument(f"--ssh-config {self.ssh_config} is no file")
        return Fleet(Config.load(files), self.rules(new=new), parallel=self.parallel)


def owner() -> str:
    """Who we are, and since when, for whoever finds a host locked."""
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()}) since {now}"


def _secret(descriptor: int | None, name: str) -> str:
    """The first line of what a descriptor has."""
    if descriptor is None:
        return ""
    try:
        data = os.read(descriptor, _MOST_SECRET_BYTES)
    except OSError as error:
        raise InvalidArgument(f"{name} {descriptor} cannot be read: {error.strerror}") from error
    return data.split(b"\n")[0].decode(errors="surrogateescape")
