"""Archives that go out and come in: what other people's tools read of ours, and we of theirs, is the same image."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.image.conftest import Store, archive, member, pieces, tool, tree

pytestmark = pytest.mark.kernel
FULL_CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


def rich() -> bytes:
    """A root file system with all that a layer can hold."""
    ping = member("bin/ping", mode=0o4755)
    ping.uid, ping.gid = 7, 8
    ping.pax_headers = {"SCHILY.xattr.security.capability": FULL_CAPABILITY.decode("utf-8", "surrogateescape")}
    labelled = member("etc/labelled")
    labelled.pax_headers = {"SCHILY.xattr.user.note": "kept", "mtime": "1234567890.123456789"}
    fifo, null = member("run/fifo", tarfile.FIFOTYPE), member("dev/null", tarfile.CHRTYPE, mode=0o666)
    null.devmajor, null.devminor = 1, 3
    return archive(
        [
            (member("bin", tarfile.DIRTYPE, mode=0o755), b""),
            (ping, b"ping" * 10_000),
            (member("bin/ping6", tarfile.LNKTYPE, "bin/ping"), b""),
            (member("etc", tarfile.DIRTYPE, mode=0o1777), b""),
            (labelled, b"x"),
            (member("etc/link", tarfile.SYMTYPE, "/nowhere"), b""),
            (member("etc/" + "long" * 50), b"long"),
            (member("etc/ünïcode"), b"name"),
            (member("run", tarfile.DIRTYPE, mode=0o755), b""),
            (member("dev", tarfile.DIRTYPE, mode=0o755), b""),
            (fifo, b""),
            (null, b""),
        ]
    )


async def saved(store: Store, *references: str) -> bytes:
    return b"".join([piece async for piece in store.images.save(references)])


@pytest.fixture
async def app(store: Store, layout: Path) -> str:
    """Two names of an image with a gzipped layer and all kinds of files."""
    image_id = await store.images.import_image(pieces(gzip.compress(rich())), reference="team/app:1")
    await store.images.tag("team/app:1", "team/app:2")
    return image_id


async def test_a_saved_image_is_what_it_was_where_it_is_loaded(store: Store, app: str, tmp_path: Path) -> None:
    data = await saved(store, "team/app")
    assert await saved(store, "team/app") == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert [each["RepoTags"] for each in listed] == [["team/app:1", "team/app:2"]]
    other = Store(tmp_path / "other")
    await other.open()
    assert await other.images.load(pieces(data)) == [("team/app:1", app), ("team/app:2", app)]
    before, after = await store.images.get(app), await other.images.get(app)
    assert (before.manifest_digest, before.config) == (after.manifest_digest, after.config)
    assert tree(store.layer(app)) == tree(other.layer(app))
    other.images.close()


async def test_names_that_are_saved(store: Store, app: str) -> None:
    """A repository means its tags; an id has no name; whatever is said twice is saved once."""
    for asked, tags in (
        (["team/app"], [["team/app:1", "team/app:2"]]),
        (["team/app:2"], [["team/app:2"]]),
        ([app], [None]),
        (["team/app:1", app[:20], "team/app:1"], [["team/app:1"]]),
    ):
        with tarfile.open(fileobj=io.BytesIO(await saved(store, *asked))) as tar:
            listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            assert [each["RepoTags"] for each in listed] == tags
            assert len(set(tar.getnames())) == len(tar.getnames())


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_skopeo_and_umoci_unpack_the_same_files(store: Store, app: str, tmp_path: Path, form: str) -> None:
    path, layout = tmp_path / "saved.tar", tmp_path / "layout"
    path.write_bytes(await saved(store, "team/app:1"))
    name = "team/app:1" if form == "docker-archive" else "1"
    tool("skopeo", "copy", f"{form}:{path}:{name}", f"oci:{layout}:app")
    tool("umoci", "unpack", "--image", f"{layout}:app", str(tmp_path / "bundle"))
    assert tree(tmp_path / "bundle/rootfs") == tree(store.layer(app))


async def test_umoci_reads_what_was_saved_as_a_folder(store: Store, app: str, tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-xC", tmp_path / "layout"], input=await saved(store, "team/app:1"), check=True)
    tool("umoci", "unpack", "--image", f"{tmp_path}/layout:1", str(tmp_path / "bundle"))
    assert tree(tmp_path / "bundle/rootfs") == tree(store.layer(app))


@pytest.fixture
def podman() -> Iterator[list[str]]:
    """Podman with a store of its own, whose path is short: it wants one below 50 characters."""
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        yield ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]


async def test_podman_takes_it_and_gives_it_back(store: Store, app: str, podman: list[str], tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(await saved(store, "team/app"))
    tool(*podman, "load", "-i", str(path))
    told = subprocess.run([*podman, "image", "inspect", "team/app:2"], capture_output=True, check=True).stdout
    before = await store.images.get(app)
    assert tuple(json.loads(told)[0]["RootFS"]["Layers"]) == before.diff_ids
    for form in ("docker-archive", "oci-archive"):
        back = tmp_path / f"{form}.tar"
        tool(*podman, "save", "--format", form, "-o", str(back), "team/app:2")
        other = Store(tmp_path / form)
        await other.open()
        ((name, image_id),) = await other.images.load(pieces(back.read_bytes()))
        assert name.endswith("team/app:2")
        assert tree(other.layer(image_id)) == tree(store.layer(app))
        other.images.close()
