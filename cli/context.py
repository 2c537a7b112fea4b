"""Commands on contexts: daemons under names. They are kept in a file of the user's (`cli/endpoint.py`)."""

import sys
from typing import Annotated

from cli.command import Arguments, argument, command, flag, switch
from cli.container.lifecycle import complain
from cli.endpoint import DEFAULT_CONTEXT, Context, Contexts, Selection, Tls, current_context, parse
from cli.output import table
from cli.output.inspection import render
from cli.output.table import Row
from shoal.errors import Conflict, InvalidArgument, ShoalError
from shoal.names import check_name

_COLUMNS = ("Name", "Description", "DockerEndpoint", "Error")
_FIELDS = ("host", "ca", "cert", "key")


@command(
    "[OPTIONS] CONTEXT",
    examples=[
        "shoal context create rack --host ssh://root@n1",
        "shoal context create rack --docker host=n1:2377,n2:2377,ca=ca.pem,cert=cert.pem,key=key.pem",
    ],
)
def create(
    context: Annotated[str, argument()],
    host: Annotated[str, flag("--host", help="Daemon of the context: unix://, ssh:// or host:2377[,host:2377…]")] = "",
    docker: Annotated[str, flag("--docker", help="The same as host=…,ca=…,cert=…,key=…")] = "",
    description: Annotated[str, flag("--description", help="Description of the context")] = "",
) -> None:
    """Create a context"""
    check_name(context, "context")
    fields = _fields(docker)
    host = host or fields.get("host", "")
    if not host:
        raise InvalidArgument("a context needs a daemon", hint="give --host unix://, ssh://user@host or host:2377")
    parse(host)
    contexts = Contexts.load()
    if context == DEFAULT_CONTEXT or any(each.name == context for each in contexts.stored):
        raise Conflict(f'context "{context}" already exists')
    tls = Tls(fields.get("ca", ""), fields.get("cert", ""), fields.get("key", ""))
    made = Context(context, host, description, tls)
    contexts._replace(stored=(*contexts.stored, made)).save()
    print(context)
    print(f'Successfully created context "{context}"', file=sys.stderr)


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


@command("[OPTIONS] CONTEXT [CONTEXT...]", examples=["shoal context rm rack"])
def remove(
    contexts: Arguments,
    force: Annotated[bool, switch("-f", "--force", help="Force the removal of a context in use")] = False,
) -> int:
    """Remove one or more contexts"""
    failed = 0
    for name in contexts:
        try:
            _remove(name, force=force)
        except ShoalError as error:
            failed = complain(error)
            continue
        print(name)
    return failed


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


def _fields(text: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        if not equals and list(out)[-1:] == ["host"]:  # another manager of the same cluster
            out["host"] += f",{part}"
            continue
        if key not in _FIELDS or not equals:
            raise InvalidArgument(f"unrecognized config key: {key}", hint=f"known are {', '.join(_FIELDS)}")
        out[key] = value
    return out


def _row(context: Context, *, current: bool, marked: bool) -> Row:
    return {
        "Name": f"{context.name} *" if current and marked else context.name,
        "Description": context.description,
        "DockerEndpoint": context.host,
        "Error": "",
        "Current": str(current).lower(),
    }


def _remove(name: str, *, force: bool) -> None:
    contexts = Contexts.load()
    if name == DEFAULT_CONTEXT:
        raise Conflict('context "default" cannot be removed')
    contexts.get(name)
    if contexts.current == name:
        if not force:
            raise Conflict(f'context "{name}" is in use', hint="set another one, or use --force to remove it")
        contexts = contexts._replace(current=DEFAULT_CONTEXT)
    contexts._replace(stored=tuple(each for each in contexts.stored if each.name != name)).save()
