"""`state`, `list` and `ps`: what can be asked about containers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agent.runtime.cgroups.group import Groups
from agent.runtime.failure import Failure
from agent.runtime.oci.record import Place, group_of, places, state, status


def container(place: Place) -> dict[str, Any]:
    record = place.load()
    return state(record, status(place, record, Groups()))


def containers(root: Path) -> list[dict[str, Any]]:
    """The state of each, but for one that is being removed while we look."""
    found = []
    for place in places(root):
        try:
            found.append(container(place))
        except Failure:
            continue
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As runc and crun print them."""
    lines = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    lines += [
        tuple(str(row[name]) for name in ("id", "pid", "status", "bundle", "created", "owner"))  # type: ignore[misc]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def pids(place: Place) -> list[int]:
    return sorted(group_of(place.load(), Groups()).pids())


def processes(numbers: Iterable[int], arguments: Sequence[str]) -> str:
    """What the host's ps says of them with these arguments; "-ef" without any."""
    import shutil  # only here, and dear to a command that is short
    import subprocess

    program = shutil.which("ps")
    if program is None:
        raise Failure("Unsupported", "this host has no ps", "use --format json")
    ps = subprocess.run([program, *(arguments or ("-ef",))], check=False, capture_output=True, text=True)
    if ps.returncode:
        raise Failure("InvalidArgument", f"ps {' '.join(arguments)}: {ps.stderr.strip().partition(chr(10))[0]}")
    lines = ps.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise Failure("InvalidArgument", "couldn't find PID field in ps output", "have ps show it: -o pid,args")
    column, wanted = titles.index("PID"), {str(number) for number in numbers}
    return "\n".join([lines[0], *(line for line in lines[1:] if line.split()[column] in wanted)]) + "\n"
