"""An ssh_config of all machines, beside their records: by it, OpenSSH's own programs reach them by name.

`machine ssh`, `scp` and `mount` use it, and so does whoever includes it. It is written anew from the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from machine.model import Machine
from machine.record import Record, Records
from shoal.files import write_atomic


def write(records: Records) -> Path:
    """The file, as the records are now."""
    path = records.folder / "ssh_config"
    write_atomic(path, text(records.all(), records.known_hosts, Path("~/.ssh").expanduser()).encode(), durable=False)
    return path


def text(machines: Sequence[Record], known_hosts: Path, users: Path) -> str:
    """A block per machine, then what the user's own file says: of each option, ssh takes the first that it finds."""
    lines: list[str] = []
    for each in machines:
        lines += [f"Host {each.machine.name}", *_lines(each.machine)]
    lines += ["Match all", f'Include "{users}/config"', "StrictHostKeyChecking yes"]
    lines.append(f'UserKnownHostsFile "{known_hosts}" "{users}/known_hosts"')
    return "\n".join([*lines, ""])


def _lines(machine: Machine) -> Iterator[str]:
    ssh = machine.ssh
    yield f"HostName {machine.address}"
    if ssh.port:
        yield f"Port {ssh.port}"
    if ssh.user:
        yield f"User {ssh.user}"
    for each in ssh.identities:
        yield f'IdentityFile "{Path(each).expanduser()}"'
    if ssh.identities:
        yield "IdentitiesOnly yes"
    if ssh.jump:
        yield f"ProxyJump {ssh.jump}"
