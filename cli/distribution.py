"""Commands between this host and registries: `pull`, `push`, `search`."""

import contextlib
import sys
from typing import Annotated, TextIO

from cli import credentials
from cli.client import Client
from cli.command import argument, command, flag, switch
from cli.listing import ListFlags
from cli.output.pulling import Pulling
from cli.parse import pair
from cli.parse.number import integer32
from shoal.errors import InvalidArgument, ShoalError
from shoal.v1 import engine_pb2

_FOUND = ("Name", "Description", "StarCount", "IsOfficial")
_HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
_DESCRIPTION = 45


def with_tag(reference: str) -> str:
    """`reference` with the tag that is meant when none is given."""
    last = reference.rsplit("/", 1)[-1]
    return reference if ":" in last or "@" in last else f"{reference}:latest"


@command("[OPTIONS] NAME[:TAG|@DIGEST]", examples=["shoal pull busybox", "shoal pull -a localhost:5000/web"])
async def pull(
    client: Client,
    reference: Annotated[str, argument()],
    all_tags: Annotated[bool, switch("-a", "--all-tags", help="Download all tagged images in the repository")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Suppress verbose output")] = False,
    platform: Annotated[str, flag("--platform", help="Pull the image for this platform (linux/amd64)")] = "",
) -> None:
    """Download an image from a registry"""
    if all_tags and with_tag(reference) == reference:
        raise ShoalError("tag can't be used with --all-tags/-a")
    if not all_tags and not quiet:
        _tell_default(reference)
    request = _pulling(reference, platform)
    request.all_tags = all_tags
    done = await _pull(client, request, out=None if quiet else sys.stdout)
    print(done.reference.rpartition(":")[0] if all_tags else done.reference)


def _tell_default(reference: str) -> None:
    """Which tag is meant where none is given; what is no reference, the agent refuses."""
    from shoal import reference as references  # a few milliseconds, which `run` needs not spend

    with contextlib.suppress(InvalidArgument):
        if references.parse(reference).with_default_tag() != references.parse(reference):
            print("Using default tag: latest")


async def pull_first(client: Client, reference: str, *, quiet: bool, platform: str) -> None:
    """A pull on the way to something else: all that it says goes to stderr."""
    await _pull(client, _pulling(reference, platform), out=None if quiet else sys.stderr)


def _pulling(reference: str, platform: str) -> engine_pb2.PullImageRequest:
    known = credentials.find(reference)
    return engine_pb2.PullImageRequest(
        reference=reference, platform=platform, username=known.username, password=known.password
    )


async def _pull(client: Client, request: engine_pb2.PullImageRequest, *, out: TextIO | None) -> engine_pb2.PullDone:
    """What came last; without `out` nothing is said."""
    shown = _Pull(with_tag(request.reference), out=out, announced=request.all_tags)
    done = engine_pb2.PullDone()
    async for response in client.images.PullImage(request):
        shown.take(response)
        if response.WhichOneof("response") == "done":
            done = response.done
    if not done.reference:
        raise ShoalError(f"the pull of {request.reference} ended early", hint="try again; what came is kept")
    shown.end(request.reference if request.all_tags else with_tag(request.reference))
    return done


class _Pull:
    """What a pull says of itself; nothing without `out`. `announced`: the daemon names the tags."""

    def __init__(self, reference: str, *, out: TextIO | None, announced: bool) -> None:
        self._reference = reference
        self._out = out
        self._announced = announced
        self._drawn = Pulling(out) if out is not None else None
        self._up_to_date = True

    def take(self, response: engine_pb2.PullImageResponse) -> None:
        if self._out is None or self._drawn is None:
            return
        kind = response.WhichOneof("response")
        if not self._announced:  # not before: a reference that cannot be is no repository to pull from
            _announce(self._reference, "" if "@" in self._reference else self._reference.rpartition(":")[2], self._out)
            self._announced = True
        if kind == "tag":
            self._drawn = Pulling(self._out)
            _announce(self._reference, response.tag, self._out)
        elif kind == "layer":
            self._drawn.layer(response.layer)
        else:
            self._drawn.end()
            self._up_to_date = self._up_to_date and response.done.up_to_date
            print(f"Digest: {response.done.digest}", file=self._out)

    def end(self, reference: str) -> None:
        if self._out is not None:
            state = "Image is up to date" if self._up_to_date else "Downloaded newer image"
            print(f"Status: {state} for {reference}", file=self._out)


def _announce(reference: str, tag: str, out: TextIO) -> None:
    """`tag`: what of the repository; nothing where the reference says that by its digest."""
    name, at, digest = reference.partition("@")
    repository = name if at else name.rpartition(":")[0]
    if credentials.registry_of(reference) == credentials.DOCKER_IO:
        path = repository.removeprefix("docker.io/")
        registry, repository = "docker.io", path if "/" in path else f"library/{path}"
    else:
        registry, _, repository = repository.partition("/")
    print(f"{tag or f'{registry}/{repository}@{digest}'}: Pulling from {repository}", file=out)


@command("[OPTIONS] NAME[:TAG]", examples=["shoal push localhost:5000/web:1", "shoal push -a localhost:5000/web"])
async def push(
    client: Client,
    reference: Annotated[str, argument()],
    all_tags: Annotated[bool, switch("-a", "--all-tags", help="Push all tags of an image to the repository")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Suppress verbose output")] = False,
    compression: Annotated[
        str,
        flag(
            "--compression",
            help="Compress all layers as gzip or zstd (default: as they came, and as gzip what was made here)",
        ),
    ] = "",
    platform: Annotated[
        str, flag("--platform", help="Push the image for this platform alone (linux/amd64), without its index")
    ] = "",
) -> None:
    """Upload an image to a registry"""
    if all_tags and with_tag(reference) == reference:
        raise ShoalError("tag can't be used with --all-tags/-a")
    if not all_tags and not quiet:
        _tell_default(reference)
    request = engine_pb2.PushImageRequest(
        reference=reference, all_tags=all_tags, compression=compression, platform=platform
    )
    name = await _push(client, request, quiet=quiet, out=sys.stdout)
    if quiet:
        print(name if all_tags else f"{name}:{with_tag(reference).rpartition(':')[2]}")


async def push_image(client: Client, reference: str, *, quiet: bool, out: TextIO) -> None:
    """A push of one tag with what it says on `out`."""
    await _push(client, engine_pb2.PushImageRequest(reference=reference), quiet=quiet, out=out)


async def _push(client: Client, request: engine_pb2.PushImageRequest, *, quiet: bool, out: TextIO) -> str:
    """What `request` means, with the credentials for it; the canonical name of the repository."""
    request.credentials.CopyFrom(credentials.find(request.reference).message())
    drawn = Pulling(out)
    name = ""
    async for response in client.images.PushImage(request):
        kind = response.WhichOneof("response")
        if kind == "repository":
            name = response.repository
            if not quiet:
                print(f"The push refers to repository [{name}]", file=out)
        elif kind == "layer" and not quiet:
            drawn.layer(response.layer)
        elif kind == "done" and not quiet:
            done = response.done
            drawn.end()
            print(f"{done.tag}: digest: {done.digest} size: {done.size_bytes}", file=out)
            drawn = Pulling(out)
    return name


@command("[OPTIONS] TERM", examples=["shoal search busybox", "shoal search localhost:5000/web"])
async def search(
    client: Client,
    flags: ListFlags,
    term: Annotated[str, argument()],
    limit: Annotated[int, flag("--limit", metavar="int", parse=integer32, help="Max number of search results")] = 0,
) -> None:
    """Search Docker Hub, or a registry, for images"""
    filters = _filters(flags.filter)
    request = engine_pb2.SearchImagesRequest(term=term, limit=limit, credentials=credentials.find(term).message())
    answer = await client.images.SearchImages(request)
    rows = [
        {
            "Name": each.name,
            "Description": each.description if flags.no_trunc else _short(each.description),
            "StarCount": str(each.stars),
            "IsOfficial": "[OK]" if each.official else "",
        }
        for each in answer.images
        if each.stars >= filters.get("stars", 0) and each.official == filters.get("is-official", each.official)
    ]
    print(flags.draw(rows, columns=_FOUND, key="Name", headers=_HEADERS), end="")


def _filters(given: list[str]) -> dict[str, int]:
    """`stars` as a number, `is-official` as 0 or 1. Raises InvalidArgument."""
    found = {}
    for each in pair.filters(given):
        value = {"true": "1", "false": "0"}.get(each.value, each.value)
        if each.key not in ("stars", "is-official") or not value.isdecimal():
            raise InvalidArgument(f"invalid filter '{each.key}={each.value}'", hint="use stars=N or is-official=true")
        found[each.key] = int(value)
    return found


def _short(text: str) -> str:
    """One line, as docker shortens it."""
    line = text.replace("\n", " ")
    return line if len(line) <= _DESCRIPTION else f"{line[: _DESCRIPTION - 1]}…"
