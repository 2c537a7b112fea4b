"""The documents of an image: index → manifest → configuration. OCI's and docker's (schema 2) alike.

Parsed strictly, since they come from strangers: sizes are bounded, digests checked, and a document that could be
read as two kinds is refused (CVE-2021-41190).
"""

from __future__ import annotations

import datetime
import re
from typing import Any, TypeVar

import msgspec

from agent.image.platform import Platform
from agent.registry import media
from shoal import digest as digests
from shoal.errors import InvalidArgument, NotFound, Unsupported
from shoal.model.health import HealthCheck
from shoal.model.image import ImageConfig

MAX_DOCUMENT_BYTES = 4 << 20
# docker's limit; more would not fit overlayfs' options either.
MAX_LAYERS = 127

OCI_INDEX, OCI_MANIFEST = media.OCI_INDEX, media.OCI_MANIFEST
DOCKER_INDEX, DOCKER_MANIFEST = media.DOCKER_INDEX, media.DOCKER_MANIFEST
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"
_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream")

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
T = TypeVar("T")


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str | None = None


class Descriptor(msgspec.Struct, rename={"media_type": "mediaType"}, omit_defaults=True):
    """Where content is: its kind, digest and size, and in an index for which platform."""

    media_type: str
    digest: str
    size: int
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None

    def __post_init__(self) -> None:
        digests.check(self.digest)
        if not 0 <= self.size < 1 << 42:
            raise InvalidArgument(f"{self.digest} claims a size of {self.size} bytes")

    @property
    def short(self) -> str:
        """The 12 digits that progress shows."""
        return self.digest.partition(":")[2][:12]


class _Document(
    msgspec.Struct,
    rename={
        "schema_version": "schemaVersion",
        "media_type": "mediaType",
        "fs_layers": "fsLayers",
        "artifact_type": "artifactType",
    },
):
    """An index or a manifest, before it is known which."""

    schema_version: int = 0
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    fs_layers: Any = None


class Index(msgspec.Struct, frozen=True):
    """One image for several platforms."""

    manifests: tuple[Descriptor, ...]


class Manifest(msgspec.Struct, frozen=True):
    """One image for one platform. Layers bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class _Health(
    msgspec.Struct,
    rename={
        "test": "Test",
        "interval": "Interval",
        "timeout": "Timeout",
        "retries": "Retries",
        "start_period": "StartPeriod",
        "start_interval": "StartInterval",
    },
    omit_defaults=True,
):
    """Docker's, in nanoseconds; OCI images have none."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class _Config(
    msgspec.Struct,
    rename={
        "user": "User",
        "exposed_ports": "ExposedPorts",
        "env": "Env",
        "entrypoint": "Entrypoint",
        "cmd": "Cmd",
        "volumes": "Volumes",
        "workdir": "WorkingDir",
        "labels": "Labels",
        "stop_signal": "StopSignal",
        "health": "Healthcheck",
        "shell": "Shell",
        "on_build": "OnBuild",
    },
    omit_defaults=True,
):
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    workdir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    health: _Health | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class _RootFs(msgspec.Struct):
    type: str
    diff_ids: list[str]


class _Step(msgspec.Struct, omit_defaults=True):
    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    author: str | None = None
    empty_layer: bool = False


class Document(msgspec.Struct, omit_defaults=True):
    """An image's configuration (https://github.com/opencontainers/image-spec/blob/main/config.md)."""

    architecture: str
    os: str
    rootfs: _RootFs
    variant: str | None = None
    author: str | None = None
    comment: str | None = None
    created: str | None = None
    config: _Config | None = None
    history: list[_Step] | None = None

    @property
    def platform(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant or "")

    @property
    def created_at_ns(self) -> int:
        return parse_time(self.created or "")

    @property
    def last_comment(self) -> str:
        return self.comment or (self.history[-1].comment if self.history else "") or ""

    def image_config(self) -> ImageConfig:
        """What it says of containers. Environment entries without `=` mean nothing and are left out: whoever took
        them as "the value of the host" would leak it (CVE of podman, 2026-57231)."""
        said = self.config or _Config()
        return ImageConfig(
            entrypoint=tuple(said.entrypoint or ()),
            cmd=tuple(said.cmd or ()),
            env=tuple(entry for entry in said.env or () if entry.find("=") > 0),
            workdir=said.workdir or "",
            user=said.user or "",
            labels=said.labels or {},
            exposed_ports=tuple(port if "/" in port else f"{port}/tcp" for port in sorted(said.exposed_ports or {})),
            volumes=tuple(sorted(said.volumes or {})),
            stop_signal=said.stop_signal or "",
            health=_health_check(said.health or _Health()),
            shell=tuple(said.shell or ()),
            on_build=tuple(said.on_build or ()),
        )


def parse(data: bytes, *, media_type: str = "") -> Index | Manifest:
    """The index or manifest in `data`, which its sender called `media_type`.

    Raises InvalidArgument for a damaged one, Unsupported for a kind that holds no image.
    """
    found = _decode(data, _Document, "manifest")
    said = media_type.partition(";")[0].strip()
    if found.media_type and said in media.ACCEPTED and said != found.media_type:
        raise InvalidArgument(f"the manifest calls itself {found.media_type}, its sender called it {said}")
    if found.fs_layers is not None or found.schema_version == 1:
        raise Unsupported("manifests of schema 1 are not supported", hint="push the image again with a newer tool")
    if found.manifests is not None and (found.layers is not None or found.config is not None):
        raise InvalidArgument("the manifest is ambiguous: it is an index and an image at once")
    if found.manifests is not None:
        return Index(tuple(found.manifests))
    if found.config is None or found.layers is None:
        raise InvalidArgument("the manifest is neither an image nor an index")
    if found.artifact_type or found.config.media_type not in _CONFIGS:
        kind = found.artifact_type or found.config.media_type
        raise Unsupported(f"{kind[:200]!r} is not an image", hint="it is another kind of artifact")
    check_layers(found.layers)
    return Manifest(found.config, tuple(found.layers))


def media_type_of(data: bytes) -> str:
    """What a manifest calls itself, if it does."""
    return _decode(data, _Document, "manifest").media_type or ""


def parse_document(data: bytes) -> Document:
    """An image's configuration. Raises InvalidArgument."""
    found = _decode(data, Document, "image configuration")
    if found.rootfs.type != "layers":
        raise InvalidArgument(f"the image's root filesystem has the unknown type {found.rootfs.type[:100]!r}")
    for diff_id in found.rootfs.diff_ids:
        digests.check(diff_id)
    return found


def check_layers(layers: list[Descriptor]) -> None:
    if len(layers) > MAX_LAYERS:
        raise InvalidArgument(f"max depth exceeded: the image has {len(layers)} layers, {MAX_LAYERS} are possible")
    for layer in layers:
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise Unsupported(f"layer {layer.digest} is not in the registry ({layer.media_type[:200]})")
        if "encrypted" in layer.media_type:
            raise Unsupported(f"layer {layer.digest} is encrypted")


def choose(index: Index, wanted: Platform, *, name: str = "") -> Descriptor:
    """The manifest for a platform: the first whose variant is the wanted one, else the first that runs there.

    Raises NotFound in docker's words.
    """
    fitting = []
    for each in index.manifests:
        platform = each.platform or _Platform()
        here = Platform(platform.os, platform.architecture, platform.variant or "")
        if each.platform is None and len(index.manifests) == 1:
            return each
        if here == wanted:
            return each
        if wanted.accepts(here):
            fitting.append(each)
    if not fitting:
        raise NotFound(f"no matching manifest for {wanted} in the manifest list entries{' of ' * bool(name)}{name}")
    return fitting[0]


def write_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """An OCI manifest, always the same bytes for the same image."""
    return msgspec.json.encode(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}, order="deterministic"
    )


def write_document(document: Document) -> bytes:
    return msgspec.json.encode(document)


def new_document(
    *, platform: Platform, created_at_ns: int, diff_ids: list[str], comment: str, config: ImageConfig
) -> Document:
    """The configuration of an image whose layers were made here in one step."""
    created = format_time(created_at_ns)
    return Document(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant or None,
        created=created,
        comment=comment or None,
        config=_config(config),
        rootfs=_RootFs("layers", diff_ids),
        history=[_Step(created=created, comment=comment or None)],
    )


def committed(
    base: Document,
    *,
    diff_id: str,
    created_at_ns: int,
    config: ImageConfig,
    author: str,
    comment: str,
    command: str,
) -> Document:
    """`base` with one more layer on top, and another configuration."""
    created = format_time(created_at_ns)
    step = _Step(created=created, created_by=command or None, comment=comment or None, author=author or None)
    return msgspec.structs.replace(
        base,
        created=created,
        author=author or None,
        comment=comment or None,
        config=_config(config),
        rootfs=_RootFs("layers", [*base.rootfs.diff_ids, diff_id]),
        history=[*(base.history or []), step],
    )


def built(
    base: Document | None,
    *,
    platform: Platform,
    config: ImageConfig,
    author: str,
    diff_ids: list[str],
    steps: list[tuple[str, int, str, bool]],
) -> Document:
    """What a build made of `base`. `steps` are its own lines of history: (created by, when, comment, whether it made
    no layer); the image is as old as the last of them."""
    history = [
        _Step(created=format_time(at_ns), created_by=by, comment=comment or None, empty_layer=empty)
        for by, at_ns, comment, empty in steps
    ]
    before = (base.history or []) if base is not None else []
    return Document(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant or None,
        author=author or (base.author if base is not None else None),
        created=history[-1].created if history else base.created if base is not None else None,
        config=_config(config),
        rootfs=_RootFs("layers", diff_ids),
        history=[*before, *history],
    )


def _config(config: ImageConfig) -> _Config:
    return _Config(
        user=config.user or None,
        exposed_ports={port: {} for port in config.exposed_ports} or None,
        env=list(config.env) or None,
        entrypoint=list(config.entrypoint) or None,
        cmd=list(config.cmd) or None,
        volumes={path: {} for path in config.volumes} or None,
        workdir=config.workdir or None,
        labels=config.labels or None,
        stop_signal=config.stop_signal or None,
        health=_health(config.health) if config.health.test else None,
        shell=list(config.shell) or None,
        on_build=list(config.on_build) or None,
    )


def _health(check: HealthCheck) -> _Health:
    return _Health(
        test=list(check.test),
        interval=check.interval_ns,
        timeout=check.timeout_ns,
        retries=check.retries,
        start_period=check.start_period_ns,
        start_interval=check.start_interval_ns,
    )


def _health_check(said: _Health) -> HealthCheck:
    """Numbers that make no sense mean the defaults, as with docker's builder of old."""
    return HealthCheck(
        test=tuple(said.test or ()),
        interval_ns=max(said.interval, 0),
        timeout_ns=max(said.timeout, 0),
        retries=min(max(said.retries, 0), 1 << 31),
        start_period_ns=max(said.start_period, 0),
        start_interval_ns=max(said.start_interval, 0),
    )


def parse_time(text: str) -> int:
    """RFC 3339 with up to nine decimals, to nanoseconds since the epoch; 0 for none, for nonsense, and for what lies
    before the epoch (Go's zero time is the year 1)."""
    found = _TIME.fullmatch(text)
    if found is None:
        return 0
    day, time, fraction, zone = found.groups()
    try:
        seconds = datetime.datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}").timestamp()
    except (ValueError, OverflowError):
        return 0
    return max(0, int(seconds) * 10**9 + int((fraction or "").ljust(9, "0")))


def format_time(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, fraction = divmod(time_ns, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def _decode(data: bytes, kind: type[T], what: str) -> T:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"the {what} has {len(data)} bytes, {MAX_DOCUMENT_BYTES} are allowed")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"the {what} cannot be read: {error}") from error
