"""The flags that every list has: `-q`, `--filter`, `--format`, `--json`, `--no-trunc`; and what they do."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from cli.command import Flags, flag, switch
from cli.output import table
from cli.output.table import Row
from cli.parse import pair

Json = Annotated[bool, switch("--json", help="One JSON object a line")]


class ListFlags(Flags):
    """The shape of a list."""

    filter: Annotated[
        list[str],
        flag(
            "-f", "--filter", metavar="filter", parse=pair.condition, help="Filter output based on conditions provided"
        ),
    ] = []
    format: Annotated[
        str, flag("--format", help="Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
    ] = ""
    json: Json = False
    no_trunc: Annotated[bool, switch("--no-trunc", help="Don't truncate output")] = False
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display IDs")] = False

    def draw(
        self, rows: Sequence[Row], *, columns: Sequence[str], key: str = "ID", headers: Mapping[str, str] | None = None
    ) -> str:
        """`rows` as these flags want them."""
        return table.draw(
            rows,
            columns=columns,
            template=self.format,
            json=self.json,
            quiet=self.quiet,
            key=key,
            headers=headers,
        )
