"""`manifest`: several images of one name, each for its platform, put together here and pushed as one index.

What is being put together is a file per list below the user's configuration, until it is pushed or removed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from cli import credentials
from cli.client import Client
from cli.command import Arguments, Flags, argument, command, flag, switch
from cli.container.lifecycle import complain
from cli.distribution import with_tag
from shoal.errors import InvalidArgument, NotFound, ShoalError
from shoal.files import read_optional, write_atomic
from shoal.v1 import engine_pb2

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER = "application/vnd.docker."
_INDEXES = (_OCI_INDEX, _DOCKER_INDEX)
# https://go.dev/doc/install/source#environment
_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris wasip1 windows".split()
)
_ARCHITECTURES = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm".split()
)


class Member(msgspec.Struct):
    """One image of a list: where it is, and what its platform is said to be."""

    reference: str
    media_type: str
    digest: str
    size: int
    platform: dict[str, Any]


class Lists:
    """The lists that are being put together, by name."""

    def __init__(self) -> None:
        base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        self._folder = Path(base) / "shoal" / "manifests"

    def get(self, name: str) -> dict[str, Member] | None:
        """Its members by the names that the user gave, None where there is no such list."""
        data = read_optional(self._path(name))
        try:
            return msgspec.json.decode(data, type=dict[str, Member]) if data is not None else None
        except msgspec.MsgspecError as error:
            raise InvalidArgument(
                f"the list {name} cannot be read: {error}", hint="remove it with manifest rm"
            ) from error

    def known(self, name: str) -> dict[str, Member]:
        found = self.get(name)
        if found is None:
            raise NotFound(f"No such manifest: {with_tag(name)}")
        return found

    def put(self, name: str, members: dict[str, Member]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(name), msgspec.json.encode(members))

    def remove(self, name: str) -> None:
        """Raises NotFound."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise NotFound(f"No such manifest: {with_tag(name)}") from None

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(with_tag(name), safe='')}.json"


@command(
    "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    examples=["shoal manifest create registry/web:1 registry/web:amd64 registry/web:arm64"],
)
async def create(
    client: Client,
    name: Annotated[str, argument()],
    images: Arguments,
    amend: Annotated[bool, switch("-a", "--amend", help="Amend an existing manifest list")] = False,
) -> None:
    """Create a local manifest list for annotating and pushing to a registry"""
    lists = Lists()
    members = lists.get(name)
    if members is not None and not amend:
        raise ShoalError(f"refusing to amend an existing manifest list with no --amend flag: {with_tag(name)}")
    members = members or {}
    for image in images:
        found = await look(client, image)
        if found.media_type in _INDEXES:
            raise InvalidArgument(f"{image} is a manifest list", hint="name the images in it")
        platform = {"architecture": found.architecture, "os": found.os}
        if found.variant:
            platform["variant"] = found.variant
        reference = f"{found.repository}@{found.digest}"
        members[with_tag(image)] = Member(reference, found.media_type, found.digest, len(found.data), platform)
    lists.put(name, members)
    print(f"Created manifest list {with_tag(name)}")


class PlatformFlags(Flags):
    """What is said of an image's platform."""

    arch: Annotated[str, flag("--arch", help="Set architecture")] = ""
    os: Annotated[str, flag("--os", help="Set operating system")] = ""
    os_features: Annotated[
        list[str], flag("--os-features", metavar="strings", help="Set operating system feature")
    ] = []
    os_version: Annotated[str, flag("--os-version", help="Set operating system version")] = ""
    variant: Annotated[str, flag("--variant", help="Set architecture variant")] = ""


@command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    examples=["shoal manifest annotate --arch arm64 --variant v8 registry/web:1 registry/web:arm64"],
)
async def annotate(flags: PlatformFlags, name: Annotated[str, argument()], image: Annotated[str, argument()]) -> None:
    """Add additional information to a local image manifest"""
    lists = Lists()
    members = lists.known(name)
    member = members.get(with_tag(image))
    if member is None:
        raise NotFound(f"manifest for image {with_tag(image)} does not exist in {with_tag(name)}")
    said = {
        "architecture": flags.arch,
        "os": flags.os,
        "os.features": flags.os_features,
        "os.version": flags.os_version,
        "variant": flags.variant,
    }
    platform = {**member.platform, **{key: value for key, value in said.items() if value}}
    if platform["os"] not in _SYSTEMS or platform["architecture"] not in _ARCHITECTURES:
        raise ShoalError(
            "manifest entry for image has unsupported os/arch combination: "
            f"{platform['os']}/{platform['architecture']}",
            hint="no engine would choose it; an architecture is amd64, arm64, …",
        )
    member.platform.update(platform)
    lists.put(name, members)


@command(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    examples=["shoal manifest inspect registry/web:1", "shoal manifest inspect -v registry/web:1"],
)
async def inspect(
    client: Client,
    names: Arguments,
    verbose: Annotated[
        bool, switch("-v", "--verbose", help="Output additional info including layers and platform")
    ] = False,
) -> None:
    """Display an image manifest, or manifest list"""
    if len(names) > 2:
        raise InvalidArgument("'shoal manifest inspect' requires at least 1 and at most 2 arguments")
    lists = Lists()
    if len(names) == 2:
        member = lists.known(names[0]).get(with_tag(names[1]))
        if member is None:
            raise NotFound(f"No such manifest: {with_tag(names[1])}")
        found = await look(client, member.reference)
        print(_verbose(found, names[1], member.platform) if verbose else _indented(found.data))
        return
    members = lists.get(names[0])
    if members is not None:
        print(_indented(index_of(members)))
        return
    found = await look(client, names[0])
    platform = {"architecture": found.architecture, "os": found.os}
    print(_verbose(found, names[0], platform) if verbose else _indented(found.data))


@command(
    "[OPTIONS] MANIFEST_LIST", examples=["shoal manifest push registry/web:1", "shoal manifest push -p registry/web:1"]
)
async def push(
    client: Client,
    name: Annotated[str, argument()],
    purge: Annotated[bool, switch("-p", "--purge", help="Remove the local manifest list after push")] = False,
) -> None:
    """Push a manifest list to a repository"""
    lists = Lists()
    members = lists.known(name)
    request = engine_pb2.PutIndexRequest(
        reference=name,
        data=index_of(members),
        members=[each.reference for each in members.values()],
        credentials=credentials.find(name).message(),
    )
    print((await client.images.PutIndex(request)).digest)
    if purge:
        lists.remove(name)


@command("MANIFEST_LIST [MANIFEST_LIST...]", examples=["shoal manifest rm registry/web:1"])
async def remove(names: Arguments) -> int:
    """Delete one or more manifest lists from local storage"""
    failed = 0
    for name in names:
        try:
            Lists().remove(name)
        except ShoalError as error:
            failed = complain(error)
    return failed


async def look(client: Client, image: str) -> engine_pb2.GetManifestResponse:
    """What an image is at its registry."""
    request = engine_pb2.GetManifestRequest(reference=image, credentials=credentials.find(image).message())
    return await client.images.GetManifest(request)


def index_of(members: dict[str, Member]) -> bytes:
    """The list as it is pushed: docker's kind where all of its images are, else OCI's."""
    docker = all(each.media_type.startswith(_DOCKER) for each in members.values())
    entries = [
        {"mediaType": each.media_type, "size": each.size, "digest": each.digest, "platform": each.platform}
        for each in members.values()
    ]
    kind = _DOCKER_INDEX if docker else _OCI_INDEX
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": kind, "manifests": entries})


def _verbose(found: engine_pb2.GetManifestResponse, name: str, platform: dict[str, Any]) -> str:
    kind = "SchemaV2Manifest" if found.media_type.startswith(_DOCKER) else "OCIManifest"
    if found.media_type in _INDEXES:
        kind, platform = "ManifestList", {}
    descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": len(found.data)}
    shown = {
        "Ref": with_tag(name),
        "Descriptor": {**descriptor, **({"platform": platform} if platform else {})},
        kind: json.loads(found.data),
    }
    return json.dumps(shown, indent="\t", ensure_ascii=False)


def _indented(data: bytes) -> str:
    return json.dumps(json.loads(data), indent="\t", ensure_ascii=False)
