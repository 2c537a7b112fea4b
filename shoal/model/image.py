"""Image: a root filesystem in layers, with how to run it, as one host holds it."""

from __future__ import annotations

from shoal.model.base import Meta, Value
from shoal.model.health import HealthCheck


class ImageConfig(Value, frozen=True):
    """What the image says of its containers. `exposed_ports` are "80/tcp"; `shell` runs lines that are no JSON, and
    `on_build` are instructions for a build on top of it."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    labels: dict[str, str] = {}
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    health: HealthCheck = HealthCheck()
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()


class Image(Value, frozen=True):
    """`meta.id` is "sha256:" and the digest of its config; `tags` are familiar ("busybox:latest"), `digests`
    "repo@sha256:…"; `diff_ids` the digests of the uncompressed layers, bottom first; `parent` the image that it
    was committed on, if that is here."""

    meta: Meta = Meta()
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    manifest_digest: str = ""
    architecture: str = ""
    os: str = ""
    author: str = ""
    comment: str = ""
    size_bytes: int = 0
    config: ImageConfig = ImageConfig()
    diff_ids: tuple[str, ...] = ()
    parent: str = ""


class HistoryLine(Value, frozen=True):
    """What one instruction made. `image_id` and `tags` are those of the image that ends there, where it is known."""

    image_id: str = ""
    tags: tuple[str, ...] = ()
    created_at_ns: int = 0
    created_by: str = ""
    size_bytes: int = 0
    comment: str = ""


class ImageUsage(Value, frozen=True):
    """What an image takes of the disk, `shared_bytes` of it together with others; and how many containers have it."""

    image: Image = Image()
    shared_bytes: int = 0
    containers: int = 0
