"""`history`: how an image came about, instruction by instruction."""

import time
from typing import Annotated

from cli.client import Client
from cli.command import Flags, argument, command, flag, switch
from cli.listing import Json
from cli.output import table, words
from cli.output.table import Row
from shoal.ids import short
from shoal.v1 import engine_pb2
from shoal.v1.engine_pb2 import HistoryLine

_HEADERS = {"ID": "IMAGE", "CreatedBy": "CREATED BY", "Comment": "COMMENT"}
_MISSING = "<missing>"
_BY_WIDTH = 45
_SECOND_NS = 10**9


class HistoryFlags(Flags):
    """The shape of the list."""

    format: Annotated[
        str, flag("--format", help="Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
    ] = ""
    human: Annotated[bool, switch("-H", "--human", help="Print sizes and dates in human readable format")] = True
    json: Json = False
    no_trunc: Annotated[bool, switch("--no-trunc", help="Don't truncate output")] = False
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only show image IDs")] = False


@command("[OPTIONS] IMAGE", examples=["shoal history web:1", "shoal history --format '{{.CreatedBy}}' web:1"])
async def history(client: Client, flags: HistoryFlags, image: Annotated[str, argument()]) -> None:
    """Show the history of an image"""
    answer = await client.images.GetImageHistory(engine_pb2.GetImageHistoryRequest(reference=image))
    now_ns = time.time_ns()
    rows = [row(each, now_ns=now_ns, whole=flags.no_trunc, human=flags.human) for each in answer.lines]
    created = "CreatedSince" if flags.human else "CreatedAt"
    columns = ("ID", created, "CreatedBy", "Size", "Comment")
    text = table.draw(
        rows, columns=columns, template=flags.format, json=flags.json, quiet=flags.quiet, headers=_HEADERS
    )
    print(text, end="")


def row(line: HistoryLine, *, now_ns: int, whole: bool, human: bool) -> Row:
    by = line.created_by.replace("\t", " ")
    return {
        "ID": (line.image_id if whole else short(line.image_id)) or _MISSING,
        "CreatedSince": words.ago(line.created_at_ns, now_ns),
        "CreatedAt": words.rfc3339(line.created_at_ns // _SECOND_NS * _SECOND_NS),
        "CreatedBy": by if whole or len(by) <= _BY_WIDTH else f"{by[: _BY_WIDTH - 1]}…",
        "Size": words.decimal_size(line.size_bytes) if human else str(line.size_bytes),
        "Comment": line.comment,
    }
