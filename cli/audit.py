"""Commands on the audit record: who did what in the cluster."""

import time
from typing import Annotated

from cli.client import Client
from cli.command import command, flag, switch
from cli.listing import Json
from cli.output import table, words
from cli.output.table import Row
from cli.parse.duration import moment
from cli.parse.number import natural
from shoal.errors import ShoalError
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import AuditEntry

_COLUMNS = ("Time", "Actor", "Source", "Verb", "Object", "Decision", "Outcome")
_HEADERS = {name: name.upper() for name in _COLUMNS}


def _since(text: str) -> int:
    return moment(text, now_ns=time.time_ns())


@command(
    "[OPTIONS] | verify",
    examples=[
        "shoal swarm audit -n 20",
        "shoal swarm audit --since 1h --user ann",
        "shoal swarm audit --verb service --denied",
    ],
)
async def audit(
    client: Client,
    since: Annotated[
        int, flag("--since", metavar="time", parse=_since, help='From then on ("2027-01-02T13:23:37Z" or "42m" ago)')
    ] = 0,
    until: Annotated[int, flag("--until", metavar="time", parse=_since, help="Before then")] = 0,
    user: Annotated[str, flag("--user", help="Only what this user did")] = "",
    verb: Annotated[str, flag("--verb", help='Only this verb ("service update"), or all of a noun ("service")')] = "",
    denied: Annotated[bool, switch("--denied", help="Only what was refused")] = False,
    last: Annotated[int, flag("-n", "--last", metavar="int", parse=natural, help="Only the last so many")] = 0,
    format: Annotated[str, flag("--format", help="Format output using a template")] = "",
    json: Json = False,
) -> None:
    """Show who did what in the cluster"""
    request = control_pb2.ReadAuditRequest(
        since_ns=since, until_ns=until, user=user, verb=verb, denied=denied, last=last
    )
    rows = [_row(entry) async for part in client.control.ReadAudit(request) for entry in part.entries]
    print(table.draw(rows, columns=_COLUMNS, template=format, json=json, headers=_HEADERS), end="")


@command("[OPTIONS]", examples=["shoal swarm audit verify", "shoal swarm audit verify --head 812:5f2c…"])
async def verify(
    client: Client,
    head: Annotated[
        str, flag("--head", help="What an earlier verify printed: it must still be part of the record")
    ] = "",
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display the head")] = False,
) -> None:
    """Check that no line of the audit record was removed, altered, put in or put elsewhere

    The last line's number and hash, the head, are sealed with the managers' key: whoever can write to the store alone
    cannot forge them. What this cannot find: the whole store put back to an earlier state. For that, keep the head that
    this prints somewhere else, and give it with --head the next time.
    """
    answer = await client.control.VerifyAudit(control_pb2.VerifyAuditRequest(known=head))
    if answer.faults:
        more = f"\n  and {answer.more_faults} more" if answer.more_faults else ""
        listed = "\n".join(f"  {fault}" for fault in answer.faults)
        raise ShoalError(f"the audit record was tampered with:\n{listed}{more}")
    if quiet:
        print(answer.head)
        return
    trimmed = f", after {answer.trimmed} that were trimmed away" if answer.trimmed else ""
    print(f"The audit record is whole: {answer.lines} lines{trimmed}.")
    print(f"Head: {answer.head}")


def _row(entry: AuditEntry) -> Row:
    times = f" ({entry.count} times)" if entry.count > 1 else ""
    return {
        "Number": str(entry.number),
        "Time": words.rfc3339(entry.at_ns // 10**9 * 10**9),
        "Actor": entry.actor,
        "Source": entry.source,
        "Verb": entry.verb,
        "Object": entry.object,
        "Decision": entry.decision,
        "Outcome": f"{entry.outcome}{times}",
        "Count": str(entry.count),
    }
