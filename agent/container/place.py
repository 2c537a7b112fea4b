"""The places on this host that a container's mounts come from: volumes made and seeded, bind sources checked.

`prepare` does it once, when the container is created; `sources` before every start, since a host folder may have
gone meanwhile. What is mounted where inside is `agent.container.bundle`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from agent.container import host
from agent.container.seed import seed
from agent.volume.volumes import Volumes, looks_anonymous
from shoal.errors import Conflict, Exhausted, InvalidArgument, NotFound, Unsupported
from shoal.model.container import Mount, MountType


def check_binds(mounts: Sequence[Mount]) -> None:
    """Raises InvalidArgument for a source that is not there and may not be made, and Unsupported for labels."""
    for mount in mounts:
        if mount.relabel and host.enforces_labels():
            raise Unsupported(
                f"mount {mount.target}: option {mount.relabel} (SELinux labels) is not supported yet",
                hint="label the source yourself with chcon, and leave the option out",
            )
        if mount.type == MountType.BIND and not mount.create_source and not Path(mount.source).exists():
            raise _missing(mount)


async def prepare(
    mounts: Sequence[Mount], volumes: Volumes, *, layers: Sequence[str], anonymous: frozenset[str], durable: bool
) -> None:
    """Make the volumes of a new container and fill the empty ones with what its image has there."""
    for mount in mounts:
        if mount.type == MountType.VOLUME:
            await volumes.create(
                mount.source,
                mount.volume_labels,
                options=mount.volume_options,
                anonymous=mount.source in anonymous,
                durable=durable,
            )
            if not mount.no_copy and not mount.subpath:
                await volumes.fill(mount.source, functools.partial(seed, layers, mount.target))


async def sources(mounts: Sequence[Mount], volumes: Volumes, *, user: str) -> tuple[str, ...]:
    """Where each mount of the container `user` comes from, "" for tmpfs; missing sources that may be made are made."""
    return tuple([await _source(mount, volumes, user) for mount in mounts])


async def _source(mount: Mount, volumes: Volumes, user: str) -> str:
    if mount.type == MountType.TMPFS:
        return ""
    if mount.type == MountType.BIND:
        _make_bind(mount)
        _check_propagation(mount)
        return mount.source
    try:
        return str(await volumes.use(mount.source, user))
    except NotFound:  # removed by force behind our back, or by a removal that a crash broke off: an empty one
        return (await volumes.create(mount.source, anonymous=looks_anonymous(mount.source))).mountpoint


def _make_bind(mount: Mount) -> None:
    path = Path(mount.source)
    try:
        path.stat()
    except FileNotFoundError:
        if not mount.create_source:
            raise _missing(mount) from None
        try:
            path.mkdir(mode=0o755, parents=True)
        except OSError as error:
            raise Exhausted(
                f"error while creating mount source path '{mount.source}': {error.strerror}",
                hint="make the folder yourself, or mount another one",
            ) from error
    except OSError as error:
        raise InvalidArgument(f"cannot use mount source path '{mount.source}': {error.strerror}") from error


def _check_propagation(mount: Mount) -> None:
    """Raises Conflict, in docker's words, for a source whose mount takes no part in what was asked for."""
    wanted = mount.propagation.removeprefix("r")
    if wanted not in ("shared", "slave"):
        return
    path, kinds = host.mount_of(mount.source)
    if "shared" not in kinds and (wanted == "shared" or "master" not in kinds):
        allowed = "shared" if wanted == "shared" else "shared or slave"
        raise Conflict(
            f"path {mount.source} is mounted on {path} but it is not a {allowed} mount",
            hint=f"run mount --make-shared {path} first",
        )


def _missing(mount: Mount) -> InvalidArgument:
    return InvalidArgument(
        f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
        hint="make it first, or use -v, which makes it",
    )
