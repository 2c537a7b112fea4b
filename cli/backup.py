"""Commands on backups: take one, look into one, and make a cluster of one again."""

import contextlib
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import IO, Annotated

from cli.archive import archive, chunks
from cli.client import Client
from cli.command import argument, command, flag, switch
from cli.node import parse_availability
from cli.output import words
from cli.output.inspection import render
from cli.parse.secret import secret_in
from cli.parse.store import StoreFlags
from shoal.backup import Contents, examined
from shoal.errors import InvalidArgument, ShoalError
from shoal.v1 import control_pb2, swarm_pb2

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
        passphrase=secret_in(passphrase_file, asked="--passphrase-file"), uncompressed=no_compress
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
    header = contents.header
    if header.seal is not None:
        print("To restore it, its passphrase is needed.")
    elif header.locked_seal:
        print("To restore it, the unlock key of the swarm as it is now is needed.")
    else:
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


@command(
    "[OPTIONS] FILE|-",
    examples=[
        "shoal swarm restore --passphrase-file pass cluster.backup",
        "shoal swarm restore --unlock-key-file key --store etcd cluster.backup",
        "shoal swarm restore --seal-key seal.key --advertise-addr 10.0.0.9 cluster.backup",
    ],
)
async def restore(
    client: Client,
    place: StoreFlags,
    file: Annotated[str, argument()],
    passphrase_file: Annotated[
        str, flag("--passphrase-file", help="Read the passphrase of the backup from this file")
    ] = "",
    unlock_key_file: Annotated[
        str, flag("--unlock-key-file", help="Read the unlock key of the backup, or of --seal-key, from this file")
    ] = "",
    seal_key: Annotated[
        str, flag("--seal-key", help="The file seal.key of one of the cluster's managers, instead of a passphrase")
    ] = "",
    advertise_addr: Annotated[
        str, flag("--advertise-addr", help="Advertised address (format: <ip|interface>[:port])")
    ] = "",
    listen_addr: Annotated[
        str, flag("--listen-addr", help="Listen address (format: <ip|interface>[:port]) (default 0.0.0.0:2377)")
    ] = "",
    availability: Annotated[
        str, flag("--availability", help='Availability of the node ("active", "pause", "drain")')
    ] = "active",
) -> None:
    """Make this host the only manager of the cluster in a backup"""
    if passphrase_file and (seal_key or unlock_key_file):
        other = "--seal-key" if seal_key else "--unlock-key-file"
        raise InvalidArgument(f"--passphrase-file and {other} are two ways to the same key", hint="give one")
    if [file, passphrase_file, unlock_key_file].count("-") > 1:
        raise InvalidArgument("only one file can come by stdin", hint="name the others")
    opening = swarm_pb2.RestoreOpen(
        advertise_address=advertise_addr,
        listen_address=listen_addr,
        availability=parse_availability(availability),
        passphrase=secret_in(passphrase_file, asked="--passphrase-file"),
        unlock_key=secret_in(unlock_key_file, asked="--unlock-key-file"),
        seal=_content(seal_key) if seal_key else b"",
        store=place.access(),
    )
    if file != "-":
        examined(Path(file))  # told in the user's words, and before a byte of it is sent
    with archive(file) as source:

        async def requests() -> AsyncIterator[swarm_pb2.RestoreSwarmRequest]:
            yield swarm_pb2.RestoreSwarmRequest(open=opening)
            async for chunk in chunks(source):
                yield swarm_pb2.RestoreSwarmRequest(chunk=chunk)

        answer = await client.swarm.RestoreSwarm(requests())
    print(f"Swarm restored: current node ({answer.node_id}) is now its only manager, at {answer.manager_address}.")


def _content(path: str) -> bytes:
    with archive(path) as file:
        return file.read()


@command("[OPTIONS] FILE", examples=["shoal swarm backup inspect cluster.backup"])
def inspect(
    file: Annotated[str, argument()],
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> None:
    """Show what a backup holds"""
    print(render([document(file, examined(Path(file)))], format), end="")


@command("FILE", examples=["shoal swarm backup verify cluster.backup"])
def verify(file: Annotated[str, argument()]) -> None:
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
        "HoldsSeal": header.seal is not None or bool(header.locked_seal),
        "OpensWith": [
            *(["passphrase"] if header.seal is not None else []),
            *(["unlock key"] if header.locked_seal else []),
        ],
        "Records": contents.records,
        "Kinds": contents.kinds,
        "Size": contents.size_bytes,
        "Digest": f"sha256:{contents.sha256}",
    }
