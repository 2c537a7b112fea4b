"""Commands on images of this host: `images`, `import`, `load`, `save`, `tag`, `rmi`. Those that need a registry are in
`distribution`."""

import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated

from cli.archive import archive, chunks, save_to
from cli.client import Client
from cli.command import Arguments, argument, command, flag, switch
from cli.everywhere import EveryNode, of_all_nodes
from cli.listing import ListFlags
from cli.output import words
from cli.output.sending import Sending
from cli.output.table import Row
from cli.parse import pair
from shoal.errors import InvalidArgument, NotFound, ShoalError
from shoal.ids import short
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import Image

_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_WITH_DIGEST = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
_HEADERS = {"ID": "IMAGE ID"}
_NONE = "<none>"


@command("[OPTIONS] [REPOSITORY[:TAG]]", examples=["shoal images", "shoal images --filter dangling=true -q"])
async def ls(
    client: Client,
    flags: ListFlags,
    repository: Annotated[str, argument()] = "",
    all: Annotated[bool, switch("-a", "--all", help="Show all images (default hides intermediate images)")] = False,
    digests: Annotated[bool, switch("--digests", help="Show digests")] = False,
    every_node: EveryNode = False,
) -> int:
    """List images"""
    request = engine_pb2.ListImagesRequest(filters=pair.filters(flags.filter), reference=repository, all=all)
    failed = 0
    if every_node:
        answers, failed = await of_all_nodes(client, lambda calls: calls.images().ListImages(request))
    else:
        answers = [("", await client.images.ListImages(request))]
    now_ns = time.time_ns()
    out = [
        {**row, **({"Node": node} if every_node else {})}
        for node, answer in answers
        for each in sorted(answer.images, key=lambda each: (-each.meta.created_at_ns, each.meta.id))
        for row in rows(each, now_ns=now_ns, whole=flags.no_trunc)
    ]
    if flags.quiet:  # an image with several names is still one image
        out = list({row["ID"]: row for row in out}.values())
    columns = (*(["Node"] if every_node else []), *(_WITH_DIGEST if digests else _COLUMNS))
    print(flags.draw(out, columns=columns, headers=_HEADERS), end="")
    return failed


def rows(image: Image, *, now_ns: int, whole: bool) -> list[Row]:
    """An image as docker's fields, once per tag."""
    digests = {each.partition("@")[0]: each.partition("@")[2] for each in image.digests}
    names = []
    for tag in image.tags:
        repository, _, name = tag.rpartition(":")
        names.append((repository, name, digests.get(repository, _NONE)))
    untagged = [(repository, _NONE, digest) for repository, digest in digests.items()]
    return [
        {
            "ID": image.meta.id if whole else short(image.meta.id),
            "Repository": repository,
            "Tag": name,
            "Digest": digest,
            "CreatedSince": words.ago(image.meta.created_at_ns, now_ns),
            "CreatedAt": words.local_time(image.meta.created_at_ns),
            "Size": words.decimal_size(image.size_bytes),
            "VirtualSize": words.decimal_size(image.size_bytes, 4),
            # docker measures them for `system df` alone
            "Containers": "N/A",
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
        }
        for repository, name, digest in names or untagged or [(_NONE, _NONE, _NONE)]
    ]


@command(
    "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    examples=["shoal import rootfs.tar base:1", "shoal export c | shoal import -c 'CMD [\"sh\"]' - base:2"],
)
async def import_(
    client: Client,
    file: Annotated[str, argument()],
    reference: Annotated[str, argument()] = "",
    message: Annotated[str, flag("-m", "--message", help="Set commit message for imported image")] = "",
    change: Annotated[
        list[str], flag("-c", "--change", metavar="list", help="Apply Dockerfile instruction to the created image")
    ] = [],  # noqa: B006
    platform: Annotated[str, flag("--platform", help="Set the platform of the image (linux/amd64)")] = "",
) -> None:
    """Import the contents from a tarball to create a filesystem image"""
    opening = engine_pb2.ImportOpen(
        reference=reference, message=message or f"Imported from {file}", changes=change, platform=platform
    )
    with archive(file) as source:

        async def requests() -> AsyncIterator[engine_pb2.ImportImageRequest]:
            yield engine_pb2.ImportImageRequest(open=opening)
            async for chunk in chunks(source):
                yield engine_pb2.ImportImageRequest(chunk=chunk)

        answer = await client.images.ImportImage(requests())
    print(answer.image_id)


@command("[OPTIONS]", examples=["shoal load -i images.tar", "shoal load < images.tar"])
async def load(
    client: Client,
    input: Annotated[str, flag("-i", "--input", help="Read from tar archive file, instead of STDIN")] = "-",
    quiet: Annotated[bool, switch("-q", "--quiet", help="Do not draw how far the load is")] = False,
) -> None:
    """Load images from a tar archive or STDIN"""
    if input == "-" and sys.stdin.isatty():
        raise InvalidArgument("requested load from stdin, but stdin is empty", hint="give a file with -i")
    with archive(input) as source:
        sending = None if quiet else Sending(sys.stdout, source, label="Loading")

        async def requests() -> AsyncIterator[engine_pb2.LoadImagesRequest]:
            async for chunk in chunks(source):
                if sending is not None:
                    sending.went(len(chunk))
                yield engine_pb2.LoadImagesRequest(chunk=chunk)

        answer = await client.images.LoadImages(requests())
    for each in answer.images:
        print(f"Loaded image: {each.reference}" if each.reference else f"Loaded image ID: {each.image_id}")


@command("[OPTIONS] IMAGE [IMAGE...]", examples=["shoal save -o web.tar web:1", "shoal save web | gzip > web.tar.gz"])
async def save(
    client: Client,
    images: Arguments,
    output: Annotated[str, flag("-o", "--output", help="Write to a file, instead of STDOUT")] = "",
) -> None:
    """Save one or more images to a tar archive (streamed to STDOUT by default)"""
    await save_to(
        output, (each.chunk async for each in client.images.SaveImages(engine_pb2.SaveImagesRequest(references=images)))
    )


@command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", examples=["shoal tag web:1 registry.local/web:1"])
async def tag(client: Client, source: Annotated[str, argument()], target: Annotated[str, argument()]) -> None:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"""
    await client.images.TagImage(engine_pb2.TagImageRequest(source=source, target=target))


@command("[OPTIONS] IMAGE [IMAGE...]", examples=["shoal rmi web:1", "shoal rmi -f $(shoal images -q)"])
async def remove(
    client: Client,
    images: Arguments,
    force: Annotated[bool, switch("-f", "--force", help="Force removal of the image")] = False,
    no_prune: Annotated[bool, switch("--no-prune", help="Do not delete untagged parents")] = False,
) -> int:
    """Remove one or more images"""
    failed = 0
    for image in images:
        try:
            request = engine_pb2.RemoveImageRequest(reference=image, force=force, no_prune=no_prune)
            answer = await client.images.RemoveImage(request)
        except ShoalError as error:
            print(f"Error: {error}", file=sys.stderr)
            failed = failed if force and isinstance(error, NotFound) else 1
            continue
        for name in answer.untagged:
            print(f"Untagged: {name}")
        for digest in answer.deleted:
            print(f"Deleted: {digest}")
    return failed
