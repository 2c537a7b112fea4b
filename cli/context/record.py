"""`context create`, `update` and `rm`.

The files of a certificate stay where they are, apart from those that only the context has: `swarm user create
--context` and `context import` put them into a folder of its name, and `rm` takes that away.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

from cli.command import Arguments, argument, command, flag, switch
from cli.container.lifecycle import complain
from cli.endpoint import DEFAULT_CONTEXT, NO_TLS, Context, Contexts, Tls, parse
from shoal.errors import Conflict, InvalidArgument, ShoalError
from shoal.names import check_name

_FIELDS = ("host", "ca", "cert", "key")
_HOST = flag("--host", help="Daemon of the context: unix://, ssh:// or host:2377[,host:2377…]")
_DOCKER = flag("--docker", help="The same as host=…,ca=…,cert=…,key=…")
_DESCRIPTION = flag("--description", help="Description of the context")


@command(
    "[OPTIONS] CONTEXT",
    examples=[
        "shoal context create rack --host ssh://root@n1",
        "shoal context create rack --docker host=n1:2377,n2:2377,ca=ca.pem,cert=cert.pem,key=key.pem",
    ],
)
def create(
    context: Annotated[str, argument()],
    host: Annotated[str, _HOST] = "",
    docker: Annotated[str, _DOCKER] = "",
    description: Annotated[str | None, _DESCRIPTION] = None,
) -> None:
    """Create a context"""
    contexts = Contexts.load()
    check_free(context, contexts)
    made = _changed(Context(context, ""), host=host, docker=docker, description=description)
    if not made.host:
        raise InvalidArgument("a context needs a daemon", hint="give --host unix://, ssh://user@host or host:2377")
    contexts._replace(stored=(*contexts.stored, made)).save()
    _tell(context, "created")


@command("[OPTIONS] CONTEXT", examples=["shoal context update rack --host ssh://root@n2 --description 'rack two'"])
def update(
    context: Annotated[str, argument()],
    host: Annotated[str, _HOST] = "",
    docker: Annotated[str, _DOCKER] = "",
    description: Annotated[str | None, _DESCRIPTION] = None,
) -> None:
    """Update a context"""
    contexts = Contexts.load()
    if context == DEFAULT_CONTEXT:
        raise Conflict('context "default" cannot be updated', hint="create one of another name")
    made = _changed(contexts.get(context), host=host, docker=docker, description=description)
    contexts._replace(stored=tuple(made if each.name == context else each for each in contexts.stored)).save()
    _tell(context, "updated")


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


def check_free(name: str, contexts: Contexts) -> None:
    """Raises InvalidArgument for what is no name, Conflict where there is such a context."""
    check_name(name, "context")
    if name == DEFAULT_CONTEXT or any(each.name == name for each in contexts.stored):
        raise Conflict(f'context "{name}" already exists')


def own_folder(name: str, contexts: Contexts) -> Path:
    """Where the files lie that only this context has."""
    return Path(contexts.path).parent / name


def files_in(folder: Path) -> Tls:
    return Tls(*(str(folder / f"{each}.pem") for each in Tls._fields))


def _changed(before: Context, *, host: str, docker: str, description: str | None) -> Context:
    """The context with what was given. Another daemon has another certificate, or none."""
    fields, made = _fields(docker), before
    if host or fields:
        made = made._replace(host=host or fields.get("host", before.host), tls=_tls(fields))
        parse(made.host)
    return made if description is None else made._replace(description=description)


def _tls(fields: dict[str, str]) -> Tls:
    """The files that were named, from wherever the context will be used. Raises InvalidArgument for one that cannot be
    read, and where one is missing."""
    named = [fields.get(each, "") for each in Tls._fields]
    if not any(named):
        return NO_TLS
    for name, path in zip(Tls._fields, named, strict=True):
        if not path:
            raise InvalidArgument(f"a certificate needs ca, cert and key, and {name} is missing")
        try:
            Path(path).expanduser().read_bytes()
        except OSError as error:
            raise InvalidArgument(f"{name}={path} cannot be read: {error.strerror}") from error
    return Tls(*(str(Path(path).expanduser().absolute()) for path in named))


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


def _tell(name: str, what: str) -> None:
    print(name)
    print(f'Successfully {what} context "{name}"', file=sys.stderr)


def _remove(name: str, *, force: bool) -> None:
    contexts = Contexts.load()
    if name == DEFAULT_CONTEXT:
        raise Conflict('context "default" cannot be removed')
    gone = contexts.get(name)
    if contexts.current == name:
        if not force:
            raise Conflict(f'context "{name}" is in use', hint="set another one, or use --force to remove it")
        contexts = contexts._replace(current=DEFAULT_CONTEXT)
    contexts._replace(stored=tuple(each for each in contexts.stored if each.name != name)).save()
    folder = own_folder(name, contexts)
    if gone.tls == files_in(folder):
        shutil.rmtree(folder, ignore_errors=True)
