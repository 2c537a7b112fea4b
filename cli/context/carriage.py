"""`context export` and `import`: a context with its certificate, as one archive.

It is docker's layout, so that either takes what the other wrote:

    meta.json                       name, description, host
    tls/docker/{ca,cert,key}.pem    where it has a certificate
"""

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Annotated

from cli.command import argument, command
from cli.context.record import check_free, files_in, own_folder
from cli.endpoint import NO_TLS, Context, Contexts, Tls, parse
from cli.output.screen import write_stdout
from shoal.errors import Conflict, InvalidArgument
from shoal.files import write_atomic

_META = "meta.json"
_TLS = {f"tls/docker/{each}.pem": each for each in Tls._fields}
# Docker's own bound.
_MAX_BYTES = 10 << 20


@command("CONTEXT [FILE|-]", examples=["shoal context export rack", "shoal context export rack - | ssh n9 …"])
def export(context: Annotated[str, argument()], file: Annotated[str, argument()] = "") -> None:
    """Export a context, with its key, to a tar archive (CONTEXT.dockercontext, or a stream on STDOUT)"""
    data = pack(Contexts.load().get(context))
    if file == "-":
        if sys.stdout.isatty():
            raise InvalidArgument("refusing to write a tar to the terminal", hint="name a FILE, or redirect it")
        write_stdout(data)
        return
    path = file or f"{context}.dockercontext"
    if os.path.exists(path):  # noqa: PTH110
        raise Conflict(f"{path} is there already", hint="name another FILE")
    write_atomic(path, data)
    print(f'Written file "{path}"', file=sys.stderr)


@command("CONTEXT FILE|-", examples=["shoal context import rack rack.dockercontext"])
def import_(context: Annotated[str, argument()], file: Annotated[str, argument()]) -> None:
    """Import a context from a tar archive"""
    contexts = Contexts.load()
    check_free(context, contexts)
    try:
        data = sys.stdin.buffer.read(_MAX_BYTES + 1) if file == "-" else _read(Path(file))
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise InvalidArgument(f"{file} is no context: it has more than {_MAX_BYTES >> 20} MB")
    found, pems = unpack(data, file)
    tls = files_in(own_folder(context, contexts)) if pems else NO_TLS
    for name, pem in pems.items():  # before the context that names them
        write_atomic(getattr(tls, name), pem)
    made = found._replace(name=context, tls=tls)
    contexts._replace(stored=(*contexts.stored, made)).save()
    print(context)
    print(f'Successfully imported context "{context}"', file=sys.stderr)


def pack(context: Context) -> bytes:
    """Raises InvalidArgument where a file of its certificate cannot be read."""
    about = {
        "Name": context.name,
        "Metadata": {"Description": context.description},
        "Endpoints": {"docker": {"Host": context.host, "SkipTLSVerify": False}},
    }
    files = {_META: json.dumps(about).encode()}
    for path, name in _TLS.items() if any(context.tls) else ():
        source = getattr(context.tls, name)
        try:
            files[path] = Path(source).read_bytes()
        except OSError as error:
            raise InvalidArgument(f"{source} cannot be read: {error.strerror}") from error
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def unpack(data: bytes, file: str) -> tuple[Context, dict[str, bytes]]:
    """The context, and its certificate by the names of `Tls`. Raises InvalidArgument."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            held = {each.name: archive.extractfile(each) for each in archive if each.name in (_META, *_TLS)}
            files = {name: opened.read(_MAX_BYTES) for name, opened in held.items() if opened is not None}
        about = json.loads(files[_META])
        host = about["Endpoints"]["docker"]["Host"]
        description = about.get("Metadata", {}).get("Description", "")
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise InvalidArgument(f"{file} is no archive of a context ({error})") from error
    if not isinstance(host, str) or not isinstance(description, str):
        raise InvalidArgument(f"{file} is no archive of a context (its host is no text)")
    parse(host)
    pems = {name: files[path] for path, name in _TLS.items() if path in files}
    if pems and len(pems) < len(_TLS):
        raise InvalidArgument(f"{file} has only a part of a certificate: {', '.join(pems)}")
    return Context("", host, description), pems


def _read(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(_MAX_BYTES + 1)
