"""Commands on backups: take one, look into one, and make a cluster of one again."""

import contextlib
import os
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import IO, Annotated

import typer

from cli.client import Client
from cli.command import command, flag, switch
from cli.output import words
from cli.output.inspection import render
from shoal.backup import Contents, examined
from shoal.errors import InvalidArgument, ShoalError
from shoal.v1 import control_pb2

PASSPHRASE_HELP = "Read the passphrase that seals the cluster's key into the backup from this file"


@command(
    "[OPTIONS] | inspect FILE | verify FILE",
    examples=[
        "shoal swarm backup -o cluster.backup",
        "shoal swarm backup --passphrase-file pass | ssh vault 'cat > cluster.backup'",
        "shoal swarm backup verify cluster.backup",
    ],
)
async def backup(
    client: Client,
    output: Annotated[str, flag("-o", "--output", help='Write to a file, "-" is STDOUT (default STDOUT)')] = "-",
    passphrase_file: Annotated[str, flag("--passphrase-file", help=PASSPHRASE_HELP)] = "",
    no_compress: Annotated[bool, switch("--no-compress", help="Do not compress the records")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Say nothing of what the backup holds")] = False,
) -> None:
    """Write all of the cluster's state to one file"""
    if output == "-" and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to write a backup to a terminal", hint="use -o or redirect")
    request = control_pb2.BackupClusterRequest(
        passphrase=passphrase(passphrase_file) if passphrase_file else "", uncompressed=no_compress
    )
    stream = client.control.BackupCluster(request)
    if output == "-":
        async for part in stream:
            sys.stdout.buffer.write(part.data)
        sys.stdout.buffer.flush()
        return
    contents = await _written(Path(output), stream)
    if quiet:
        return
    print(f"Wrote {contents.records} records of revision {contents.header.revision} to {output}.")
    if contents.header.seal is None:
        print(
            "It does not hold the cluster's seal: to restore it, the file seal.key of a manager (in "
            "/var/lib/shoal/manager) is needed too. With --passphrase-file, the backup is enough by itself."
        )


async def _written(path: Path, stream: AsyncIterable[control_pb2.BackupClusterResponse]) -> Contents:
    """The backup at `path`, read back; what breaks off leaves no file there, and an older one as it was."""
    beside = path.with_name(f"{path.name}.part")
    try:
        with _new(beside) as file:
            async for part in stream:
                file.write(part.data)
            file.flush()
            os.fsync(file.fileno())
        contents = examined(beside)
        beside.rename(path)
    except OSError as error:
        raise ShoalError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return contents


def _new(path: Path) -> IO[bytes]:
    """Open for writing; none but its owner may read what is in a backup."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def passphrase(path: str) -> str:
    """The first line of a file, or of stdin for "-"."""
    try:
        text = sys.stdin.readline() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--passphrase-file {path} cannot be read: {error}") from error
    line = text.split("\n", 1)[0].rstrip("\r")
    if not line:
        raise InvalidArgument(f"--passphrase-file {path} holds no passphrase")
    return line


@command("[OPTIONS] FILE", examples=["shoal swarm backup inspect cluster.backup"])
def inspect(
    file: Annotated[str, typer.Argument()],
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> None:
    """Show what a backup holds"""
    print(render([document(file, examined(Path(file)))], format), end="")


@command("FILE", examples=["shoal swarm backup verify cluster.backup"])
def verify(file: Annotated[str, typer.Argument()]) -> None:
    """Read a backup and compare every checksum in it"""
    contents = examined(Path(file))
    print(f"{file} is whole: {contents.records} records, {contents.size_bytes} bytes, sha256:{contents.sha256}")


def document(file: str, contents: Contents) -> dict[str, object]:
    """A backup as `inspect` shows it."""
    header = contents.header
    return {
        "File": file,
        "ClusterID": header.cluster_id,
        "TakenAt": words.rfc3339(header.taken_at_ns),
        "Revision": header.revision,
        "Store": header.store,
        "Version": header.version,
        "Compressed": header.compressed,
        "HoldsSeal": header.seal is not None,
        "Records": contents.records,
        "Kinds": contents.kinds,
        "Size": contents.size_bytes,
        "Digest": f"sha256:{contents.sha256}",
    }
