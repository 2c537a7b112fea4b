"""A registry as Debian packages it, and images that other people's tools have made."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from agent.image.images import Images
from agent.registry.rules import Rules
from tests.registry import Proxy, Registry, proxy

# Larger than what a socket holds, so that a break comes in the middle.
BIG = random.Random(7).randbytes(3 << 20)


class Store:
    """An image store in a folder of its own."""

    def __init__(self, folder: Path, rules: Rules | None = None) -> None:
        self.folder = folder
        self.rules = rules
        self.images: Images = None  # type: ignore[assignment]

    async def open(self) -> Images:
        self.images = await Images.open(self.folder, rules=self.rules)
        return self.images

    def files(self) -> list[str]:
        """What lies there, apart from the catalog and empty folders: nothing in a store without images."""
        found = (path for path in self.folder.rglob("*") if not path.is_dir() or path.is_symlink())
        return sorted(str(path.relative_to(self.folder)) for path in found if path.name != "images.json")

    def layer(self, image_id: str, number: int = 0) -> Path:
        """A layer's folder, top first."""
        return Path(self.images.layers(image_id)[number])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path / "images")
    await made.open()
    yield made
    made.images.close()


def archive(members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


async def pieces(data: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def tree(folder: Path) -> dict[str, object]:
    """All that stands in a folder and what it is, times and attributes too."""
    found: dict[str, object] = {}
    names: dict[int, str] = {}
    for path in sorted(folder.rglob("*")):
        about, name = path.lstat(), str(path.relative_to(folder))
        xattrs = {
            each: os.getxattr(path, each, follow_symlinks=False) for each in os.listxattr(path, follow_symlinks=False)
        }
        found[name] = (
            (about.st_mode, about.st_uid, about.st_gid, about.st_rdev, about.st_mtime_ns),
            xattrs,
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b"",
            names.setdefault(about.st_ino, name),
        )
    return found


def tool(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with the image "1": three layers, the last of which takes a file of the first away."""
    folder = tmp_path_factory.mktemp("oci")
    path = folder / "layout"
    (folder / "first").write_text("first\n")
    (folder / "second").write_text("second\n")
    image = f"{path}:1"
    tool("umoci", "init", "--layout", str(path))
    tool("umoci", "new", "--image", image)
    tool("umoci", "insert", "--image", image, str(folder / "first"), "/etc/first")
    tool("umoci", "insert", "--image", image, str(folder / "second"), "/etc/second")
    tool("umoci", "insert", "--image", image, "--whiteout", "/etc/first")
    tool("umoci", "config", "--image", image, "--config.cmd", "/bin/app", "--config.env", "A=b")
    return path


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[Registry]:
    """A registry that lets everybody in, and has team/app:1."""
    made = Registry(tmp_path_factory.mktemp("registry")).start()
    try:
        tool("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{made.host}/team/app:1")
        yield made
    finally:
        made.kill()


@pytest.fixture
def registry(debian: Registry) -> str:
    """ "127.0.0.1:PORT" of it."""
    return debian.host


@pytest.fixture(scope="session")
def big(debian: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """team/big:1, whose only layer is BIG."""
    folder = tmp_path_factory.mktemp("big")
    (folder / "big").write_bytes(BIG)
    tool("umoci", "init", "--layout", f"{folder}/layout")
    tool("umoci", "new", "--image", f"{folder}/layout:1")
    tool("umoci", "insert", "--image", f"{folder}/layout:1", f"{folder}/big", "/big")
    tool("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}/layout:1", f"docker://{debian.host}/team/big:1")
    return f"{debian.host}/team/big:1"


@pytest.fixture
async def between(registry: str) -> AsyncIterator[Proxy]:
    async with proxy(registry) as made:
        yield made


def through(between: Proxy, name: str = "team/big:1") -> str:
    return f"{between.host}/{name}"


async def largest_blob(store: Store, between: Proxy, name: str) -> str:
    """Which of the blobs is the layer: asked of the registry, with nothing kept."""
    pulled = await store.images.pull(name)
    image = await store.images.get(name)
    assert image.meta.id == pulled.image_id
    found = [each.rpartition("/")[2] for each in store.files() if "blobs/" in each]
    sizes = {each: (store.folder / "blobs/sha256" / each).stat().st_size for each in found}
    await store.images.remove(name)
    return max(sizes, key=lambda each: sizes[each])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=3m", "small", str(folder))
    try:
        yield folder
    finally:
        tool("umount", str(folder))
        assert not os.path.ismount(folder)
