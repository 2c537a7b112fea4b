"""`context ls`, `show`, `use` and `inspect`."""

import sys
from typing import Annotated

from cli.command import argument, command, flag, switch
from cli.endpoint import DEFAULT_CONTEXT, Context, Contexts, Selection, current_context
from cli.output import table
from cli.output.inspection import render
from cli.output.table import Row

_COLUMNS = ("Name", "Description", "DockerEndpoint", "Error")


@command("[OPTIONS]", examples=["shoal context ls"])
def ls(
    selection: Selection,
    format: Annotated[str, flag("--format", help="Format output using a template")] = "",
    json: Annotated[bool, switch("--json", help="One JSON object a line")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only show context names")] = False,
) -> None:
    """List contexts"""
    contexts = Contexts.load()
    current = current_context(selection, contexts)
    marked = not (format or json or quiet)
    found = [contexts.get(DEFAULT_CONTEXT), *sorted(contexts.stored)]
    rows = [_row(each, current=each.name == current, marked=marked) for each in found]
    print(table.draw(rows, columns=_COLUMNS, template=format, json=json, quiet=quiet, key="Name"), end="")


@command("", examples=["shoal context show"])
def show(selection: Selection) -> None:
    """Print the name of the current context"""
    print(current_context(selection, Contexts.load()))


@command("CONTEXT", examples=["shoal context use rack", "shoal context use default"])
def use(context: Annotated[str, argument()]) -> None:
    """Set the current context"""
    contexts = Contexts.load()
    contexts.get(context)
    contexts._replace(current=context).save()
    print(context)
    print(f'Current context is now "{context}"', file=sys.stderr)


@command("[OPTIONS] [CONTEXT...]", examples=["shoal context inspect rack"])
def inspect(
    selection: Selection,
    contexts: Annotated[list[str], argument()] = [],  # noqa: B006
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> None:
    """Display detailed information on one or more contexts"""
    known = Contexts.load()
    found = [known.get(name) for name in contexts or [current_context(selection, known)]]
    documents = [
        {
            "Name": each.name,
            "Metadata": {"Description": each.description},
            "Endpoints": {"docker": {"Host": each.host}},
            "TLSMaterial": each.tls._asdict(),
        }
        for each in found
    ]
    print(render(documents, format), end="")


def _row(context: Context, *, current: bool, marked: bool) -> Row:
    return {
        "Name": f"{context.name} *" if current and marked else context.name,
        "Description": context.description,
        "DockerEndpoint": context.host,
        "Error": "",
        "Current": str(current).lower(),
    }
