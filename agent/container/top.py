"""Top: the processes of a container, as ps(1) of the host shows them. docker's way: ps lists all, we keep ours.

`selected` is pure. ps runs with no environment of the agent's but a fixed one, and gets the user's words as
arguments, never as a shell's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from shoal.command import run
from shoal.errors import InvalidArgument, ShoalError, Unsupported

DEFAULT = ("-ef",)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class Processes(msgspec.Struct, frozen=True):
    """A table: as many fields in each row as there are titles."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


async def processes(pids: Collection[int], arguments: Sequence[str]) -> Processes:
    """Raises Unsupported on a host without ps, InvalidArgument for what ps does not understand."""
    arguments = tuple(arguments) or DEFAULT
    try:
        ps = await run(("ps", *arguments), check=False, environment=_ENVIRONMENT)
    except ShoalError as error:
        raise Unsupported("top needs ps on this host", hint="install Debian's package procps") from error
    if ps.code:
        why = ps.stderr.decode(errors="replace").strip().split("\n")[0]
        raise InvalidArgument(f"ps {' '.join(arguments)}: {why or f'ended with {ps.code}'}")
    return selected(ps.stdout.decode(errors="replace"), pids)


def selected(listing: str, pids: Collection[int]) -> Processes:
    """The rows of these processes, of a listing whose titles have a PID. The last field may hold spaces."""
    lines = listing.splitlines()
    titles = tuple(lines[0].split()) if lines else ()
    if "PID" not in titles:
        raise ShoalError("Couldn't find PID field in ps output", hint="have ps show it: -o pid,args")
    at = titles.index("PID")
    rows = (tuple(line.split(None, len(titles) - 1)) for line in lines[1:])
    wanted = {str(pid) for pid in pids}
    return Processes(titles, tuple(row for row in rows if len(row) > at and row[at] in wanted))
