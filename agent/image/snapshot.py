"""Unpacked layers, ready as overlayfs' lower directories.

    l/<26 characters>       one layer on top of those below it, named after its chain id; short, because mount(2)
                            takes all of a container's layers in one page
    unpack/<random>/        being unpacked; swept when the host's agent starts again
    steps/<random>/         what a step of a build writes; swept by the builder, once nothing of it can still run

Images that share layers share directories. A directory in `l/` is complete: it was renamed there.
"""

from __future__ import annotations

import base64
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from agent.image import content, layer
from agent.image.content import Content
from agent.image.layer import Place, Unpacked
from agent.image.unpacker import Unpacker
from agent.kernel import overlay
from agent.kernel.spread import spread
from shoal.errors import InvalidArgument, Unsupported
from shoal.ids import new_id


class Snapshots:
    """The layer directories below `root`, whose blobs are in `content`. Unpacking blocks: for a worker thread."""

    def __init__(self, root: Path, content_store: Content) -> None:
        self._content = content_store
        self._layers = root / "l"
        self._staging = root / "unpack"
        self._steps = root / "steps"
        for folder in (self._layers, self._staging, self._steps):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self._staging, self._steps):
            spread(str(folder))
        content.empty_folder(self._staging)
        self._check()
        # Name → size of its files, 0 until `learn` says it.
        self._sizes = {each.name: 0 for each in os.scandir(self._layers)}

    def __contains__(self, chain_id: str) -> bool:
        return name_of(chain_id) in self._sizes

    def learn(self, chain_id: str, size_bytes: int) -> None:
        """Remember from the catalog how large a layer is."""
        name = name_of(chain_id)
        if name in self._sizes:
            self._sizes[name] = size_bytes

    def size(self, chain_id: str) -> int:
        """Bytes of the layer's regular files."""
        return self._sizes[name_of(chain_id)]

    def path(self, chain_id: str) -> str:
        """The layer's directory."""
        return f"{self._layers}/{name_of(chain_id)}"

    def names(self) -> list[str]:
        return list(self._sizes)

    def discard(self, name: str) -> None:
        """Forget a directory at once; its files go with the next `Content.empty_trash`. Event loop only."""
        if self._sizes.pop(name, None) is not None:
            (self._layers / name).rename(self._content.trash / new_id())

    def verify(self, digest: str, diff_id: str, *, stop: threading.Event) -> None:
        """Check a blob whose layer is unpacked already. Raises InvalidArgument."""
        with self._content.open(digest) as blob:
            found = layer.digest_of(blob, stop=stop)
        _check(digest, found, diff_id)

    def unpack(
        self,
        digest: str,
        *,
        below: Sequence[str],
        diff_id: str,
        chain_id: str,
        unpacker: Unpacker,
        stop: threading.Event,
        progress: Callable[[int], None],
    ) -> None:
        """Unpack a blob on top of the chain ids `below` (bottom first), as `chain_id`.

        Raises InvalidArgument (corrupt, refused, or not what `diff_id` says), Exhausted, `layer.Cancelled`; then
        nothing is left.
        """
        with self._place(below, self._staging) as place:
            with self._content.open(digest) as blob:
                found = layer.unpack(blob, place, unpacker=unpacker, stop=stop, progress=progress)
            _check(digest, found.diff_id, diff_id)
            self.keep(place, chain_id, found.size_bytes)

    def unpack_base(self, digest: str, *, stop: threading.Event) -> Unpacked:
        """Unpack a blob of which nothing is known yet, as the only layer of an image."""
        with self._place((), self._staging) as place, self._content.open(digest) as blob, Unpacker() as unpacker:
            found = layer.unpack(blob, place, unpacker=unpacker, stop=stop, progress=lambda _: None, strict=True)
            self.keep(place, found.diff_id, found.size_bytes)
        return found

    def step(self, below: Sequence[str]) -> AbstractContextManager[Place]:
        """Folders for a layer that is made on top of `below`, gone afterwards; `keep` makes one of them."""
        return self._place(below, self._steps)

    def sweep_steps(self) -> None:
        """Throw away what the steps of an agent before this one left. Blocks."""
        content.empty_folder(self._steps)

    def keep(self, place: Place, chain_id: str, size_bytes: int) -> None:
        """What `place.upper` holds is the layer `chain_id` from now on, unless that is there already."""
        name = name_of(chain_id)
        if name not in self._sizes:
            place.upper.rename(self._layers / name)
            self._sizes[name] = size_bytes

    def _check(self) -> None:
        """Raises Unsupported for a disk that no container could write to."""
        with self._place((), self._staging) as place:
            try:
                overlay.check(lower=str(place.mount), upper=str(place.upper), work=str(place.work))
            except OSError as error:
                raise Unsupported(
                    f"{self._layers.parent} cannot hold the layers of containers: overlay: {error.strerror}",
                    hint="it may be on an overlay itself, as a container's root is, or on NFS: name a folder on a disk "
                    "with --data-dir, or mount one there",
                ) from error

    @contextmanager
    def _place(self, below: Sequence[str], parent: Path) -> Iterator[Place]:
        """Directories for one new layer, gone afterwards."""
        staging = parent / new_id()
        place = Place(
            upper=staging / "upper",
            work=staging / "work",
            mount=staging / "mount",
            layers=self._layers,
            lower=tuple(name_of(chain_id) for chain_id in reversed(below)),
        )
        try:
            with content.told("cannot unpack"):
                for folder in (place.upper, place.work, place.mount):
                    folder.mkdir(parents=True)
                # The root of the topmost layer is the root that a container sees.
                place.upper.chmod(0o755)
                if place.lower:
                    self._copy_root(place)
            yield place
        finally:
            content.empty_folder(staging)
            staging.rmdir()

    def _copy_root(self, place: Place) -> None:
        source = self._layers / place.lower[0]
        status = source.stat()
        os.chown(place.upper, status.st_uid, status.st_gid)
        shutil.copystat(source, place.upper)
        for name in os.listxattr(place.upper):
            if name.startswith("trusted.overlay."):
                os.removexattr(place.upper, name)


@functools.lru_cache(1024)
def name_of(chain_id: str) -> str:
    """130 bits of the chain id in 26 characters."""
    raw = bytes.fromhex(chain_id.partition(":")[2])
    return base64.b32encode(raw)[:26].decode().lower()


def _check(digest: str, found: str, diff_id: str) -> None:
    if found != diff_id:
        raise InvalidArgument(f"layer {digest} unpacks to {found}, the image's configuration says {diff_id}")
