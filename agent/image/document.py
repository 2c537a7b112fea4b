"""A document: an image's configuration, which says how to run it and how it came about.

Read strictly, written as OCI has it (https://github.com/opencontainers/image-spec/blob/main/config.md); the `manifest`
names it and the layers.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.image.manifest import decode
from agent.image.platform import Platform
from shoal import digest as digests
from shoal.errors import InvalidArgument
from shoal.model.health import HealthCheck
from shoal.model.image import ImageConfig

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


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
    """An image's configuration (https://github.com/opencontainers/image-spec/blob/main/config.md). `cached`, which
    is ours: of a build's steps by key, which of the layers each made (`--cache-to type=inline`)."""

    architecture: str
    os: str
    rootfs: _RootFs
    variant: str | None = None
    author: str | None = None
    comment: str | None = None
    created: str | None = None
    config: _Config | None = None
    history: list[_Step] | None = None
    cached: dict[str, int] | None = msgspec.field(default=None, name="shoal.build.cache.v1")

    @property
    def platform(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant or "")

    @property
    def created_at_ns(self) -> int:
        return parse_time(self.created or "")

    @property
    def last_comment(self) -> str:
        return self.comment or (self.history[-1].comment if self.history else "") or ""

    def makings(self) -> list[tuple[str, int]]:
        """By what each layer was made and when, as the history has it."""
        return [
            (each.created_by or "", parse_time(each.created or ""))
            for each in self.history or []
            if not each.empty_layer
        ]

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


def parse_document(data: bytes) -> Document:
    """An image's configuration. Raises InvalidArgument."""
    found = decode(data, Document, "image configuration")
    if found.rootfs.type != "layers":
        raise InvalidArgument(f"the image's root filesystem has the unknown type {found.rootfs.type[:100]!r}")
    for diff_id in found.rootfs.diff_ids:
        digests.check(diff_id)
    return found


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
    """`base` with one more layer on top, or none where `diff_id` is empty, and another configuration."""
    created = format_time(created_at_ns)
    step = _Step(
        created=created,
        created_by=command or None,
        comment=comment or None,
        author=author or None,
        empty_layer=not diff_id,
    )
    return msgspec.structs.replace(
        base,
        created=created,
        author=author or None,
        comment=comment or None,
        config=_config(config),
        rootfs=_RootFs("layers", [*base.rootfs.diff_ids, *([diff_id] if diff_id else [])]),
        history=[*(base.history or []), step],
        cached=None,
    )


def built(
    base: Document | None,
    *,
    platform: Platform,
    config: ImageConfig,
    author: str,
    diff_ids: list[str],
    steps: list[tuple[str, int, str, bool]],
    cached: Mapping[str, int],
) -> Document:
    """What a build made of `base`. `steps` are its own lines of history: (created by, when, comment, whether it made
    no layer); the image is as old as the last of them. `cached`: as the document's."""
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
        cached=dict(cached) or None,
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
