"""`events`: what happens on a host, as it happens, and the last of what did."""

import sys
import time
from collections.abc import Iterable
from typing import Annotated

from cli.client import Client
from cli.command import command, flag
from cli.everywhere import EveryNode, Streams, from_all_nodes
from cli.listing import Json
from cli.output import words
from cli.output.functions import to_json
from cli.output.inspection import of_one
from cli.output.template import Template
from cli.output.unsaid import Unsaid
from cli.parse import pair
from cli.parse.duration import bound
from shoal.v1 import engine_pb2, types_pb2
from shoal.v1.types_pb2 import Event

# The agent refuses all others.
_FILTERS = ("container", "event", "image", "label", "network", "scope", "type", "volume")


@command(
    "[OPTIONS]",
    examples=[
        "shoal events --since 10m --until 0s",
        "shoal events --filter type=container --filter event=die",
        "shoal events --format '{{.Action}} {{.Actor.ID}}'",
    ],
)
async def events(
    client: Client,
    since: Annotated[str, flag("--since", help="Show all events created since timestamp")] = "",
    until: Annotated[str, flag("--until", help="Stream events until this timestamp")] = "",
    filter: Annotated[
        list[str],
        flag(
            "-f", "--filter", metavar="filter", parse=pair.condition, help="Filter output based on conditions provided"
        ),
    ] = [],  # noqa: B006
    format: Annotated[str, flag("--format", help="Format output: 'json' or a Go template")] = "",
    json: Json = False,
    every_node: EveryNode = False,
) -> int:
    """Get real time events from the server"""
    format = "json" if json else format
    now_ns = time.time_ns()
    since_ns, until_ns = bound(since, now_ns=now_ns), bound(until, now_ns=now_ns)
    request = engine_pb2.WatchEventsRequest(
        since_ns=since_ns,
        until_ns=until_ns,
        filters=_known(pair.filters(filter)),
    )
    if request.until_ns and not request.since_ns:  # what has been is wanted then, as far as it is remembered
        request.since_ns = 1
    template = of_one(format) if format not in ("", "json") else None
    if every_node:
        streams = await from_all_nodes(client, lambda calls: calls.system().WatchEvents(request))
    else:
        streams = Streams([("", client.system.WatchEvents(request))])
    async for node, response in streams.merged():
        for each in response.events:
            if node:
                each.attributes["node"] = node
            print(to_json(document(each)) if format == "json" else _text(each, template), flush=True)
    return streams.failed


def _known(filters: Iterable[engine_pb2.Filter]) -> list[engine_pb2.Filter]:
    """Without those that there are not, which docker does not look at; but here it is said."""
    found = []
    for each in filters:
        if each.key in _FILTERS:
            found.append(each)
        else:
            print(
                f"WARNING: events have no '{each.key}' to filter by; there are {', '.join(_FILTERS)}", file=sys.stderr
            )
    return found


def _text(event: Event, template: Template | None) -> str:
    return template.render(_fields(document(event))) if template is not None else line(event)


def _fields(known: dict[str, object]) -> dict[str, object]:
    """What JSON has in lower case has a capital letter as well in a template."""
    lower = {"status": "", "id": "", "from": "", **{key: value for key, value in known.items() if key[0].islower()}}
    return {**{"ID" if key == "id" else key[0].upper() + key[1:]: Unsaid(lower[key]) for key in lower}, **known}


def line(event: Event) -> str:
    """Docker's line: when, what kind, what happened, to whom, and what else is known."""
    known = ", ".join(f"{key}={event.attributes[key]}" for key in sorted(event.attributes))
    return (
        f"{words.rfc3339_padded(event.at_ns)} {_kind(event)} {event.action} {event.id}{f' ({known})' if known else ''}"
    )


def document(event: Event) -> dict[str, object]:
    """As `docker events --format json` names it, the old names too."""
    known = dict(event.attributes)
    old = {"status": event.action, "id": event.id, "from": known.get("image", "")}
    return {
        **(old if event.kind == types_pb2.EVENT_KIND_CONTAINER else {}),
        "Type": _kind(event),
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": known},
        "scope": "local",
        "time": event.at_ns // 10**9,
        "timeNano": event.at_ns,
    }


def _kind(event: Event) -> str:
    return types_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower()
