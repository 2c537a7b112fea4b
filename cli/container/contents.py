"""`diff`, `export`, `commit`: what a container has become, as a list, a tar or an image."""

from typing import Annotated

from cli.archive import save_to
from cli.client import Client
from cli.command import Flags, argument, command, flag, switch
from shoal.v1 import engine_pb2

_LETTERS = {
    engine_pb2.CHANGE_KIND_MODIFIED: "C",
    engine_pb2.CHANGE_KIND_ADDED: "A",
    engine_pb2.CHANGE_KIND_DELETED: "D",
}


@command("CONTAINER", examples=["shoal diff web"])
async def diff(client: Client, container: Annotated[str, argument()]) -> None:
    """Inspect changes to files or directories on a container's filesystem"""
    answer = await client.containers.DiffContainer(engine_pb2.DiffContainerRequest(container=container))
    print("".join(f"{_LETTERS[each.kind]} {each.path}\n" for each in answer.changes), end="")


@command("[OPTIONS] CONTAINER", examples=["shoal export -o web.tar web", "shoal export web | tar t"])
async def export(
    client: Client,
    container: Annotated[str, argument()],
    output: Annotated[str, flag("-o", "--output", help="Write to a file, instead of STDOUT")] = "",
) -> None:
    """Export a container's filesystem as a tar archive"""
    request = engine_pb2.ExportContainerRequest(container=container)
    await save_to(output, (each.chunk async for each in client.containers.ExportContainer(request)))


class CommitFlags(Flags):
    """What the image says of itself."""

    author: Annotated[str, flag("-a", "--author", help='Author (e.g., "Jane Doe <jane@example.com>")')] = ""
    change: Annotated[
        list[str], flag("-c", "--change", metavar="list", help="Apply Dockerfile instruction to the created image")
    ] = []
    message: Annotated[str, flag("-m", "--message", help="Commit message")] = ""
    pause: Annotated[bool, switch("-p", "--pause", negative="--no-pause", help="Pause container during commit")] = True


@command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    examples=["shoal commit web web:2", "shoal commit -m 'new motd' -c 'CMD [\"httpd\"]' web web:2"],
)
async def commit(
    client: Client,
    flags: CommitFlags,
    container: Annotated[str, argument()],
    reference: Annotated[str, argument()] = "",
) -> None:
    """Create a new image from a container's changes"""
    request = engine_pb2.CommitContainerRequest(
        container=container,
        reference=reference,
        author=flags.author,
        message=flags.message,
        changes=flags.change,
        no_pause=not flags.pause,
    )
    print((await client.containers.CommitContainer(request)).image_id)
