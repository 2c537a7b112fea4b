"""Images from a registry, from archives of other tools, from a root file system; and what must not come of them."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.image import images as module
from shoal.errors import Conflict, Exhausted, InvalidArgument, NotFound, PermissionDenied, ShoalError, Unavailable
from tests.kernel.image.conftest import Store, archive, member, pieces, tool

pytestmark = pytest.mark.kernel
ROOMS = Path(module.__file__).parents[2]


def check_app(store: Store, image_id: str) -> None:
    """The three layers that umoci made."""
    assert len(store.images.layers(image_id)) == 3
    whiteout = store.layer(image_id, 0) / "etc/first"
    assert stat.S_ISCHR(whiteout.lstat().st_mode)
    assert (store.layer(image_id, 1) / "etc/second").read_text() == "second\n"
    assert (store.layer(image_id, 2) / "etc/first").read_text() == "first\n"


async def test_pull_by_tag_and_by_digest(store: Store, registry: str) -> None:
    pulled = await store.images.pull(f"{registry}/team/app:1")
    assert not pulled.up_to_date
    image = await store.images.get(f"{registry}/team/app:1")
    assert image.meta.id == pulled.image_id
    assert image.config.cmd == ("/bin/app",)
    assert "A=b" in image.config.env
    check_app(store, pulled.image_id)
    assert (await store.images.pull(f"{registry}/team/app:1")).up_to_date
    again = await store.images.pull(f"{registry}/team/app@{pulled.digest}")
    assert again.image_id == pulled.image_id
    assert (f"{registry}/team/app:1", pulled.digest) in store.images.held()


async def test_pulls_of_one_image_share_the_work(store: Store, registry: str) -> None:
    found = await asyncio.gather(*(store.images.pull(f"{registry}/team/app:1") for _ in range(4)))
    assert len({each.image_id for each in found}) == 1
    check_app(store, found[0].image_id)


@pytest.mark.parametrize(
    ("reference", "kind", "words"),
    [
        ("{}/team/app:none", NotFound, "manifest for .*team/app:none not found"),
        ("{}/team/none:1", (NotFound, PermissionDenied), "team/none"),
        ("127.0.0.1:1/team/app:1", Unavailable, "cannot reach registry 127.0.0.1:1.*refused"),
        ("{}/Team/app:1", InvalidArgument, "must be lowercase"),
        ("{}/team/app:1:2", InvalidArgument, "invalid reference format"),
    ],
)
async def test_what_cannot_be_pulled_says_why(
    store: Store, registry: str, reference: str, kind: type[ShoalError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await store.images.pull(reference.format(registry))
    assert store.files() == []


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_load_what_skopeo_saved(store: Store, layout: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / "saved.tar"
    tool("skopeo", "copy", f"oci:{layout}:1", f"{form}:{path}:team/app:2")
    ((name, image_id),) = await store.images.load(pieces(path.read_bytes()))
    assert name in ("team/app:2", "")
    check_app(store, image_id)


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage", "empty"])
async def test_a_damaged_archive_is_refused_and_leaves_nothing(
    store: Store, layout: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "saved.tar"
    tool("skopeo", "copy", f"oci:{layout}:1", f"docker-archive:{path}:team/app:2")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 3 :]
    elif damage == "flipped":
        at = data.index(b"second\n")
        data[at] ^= 1
    elif damage == "garbage":
        data = bytearray(random.Random(1).randbytes(50_000))
    else:
        data.clear()
    with pytest.raises(InvalidArgument):
        await store.images.load(pieces(bytes(data)))
    assert store.files() == []


async def test_import_with_changes(store: Store) -> None:
    data = archive([(member("bin/app", mode=0o4755), b"x"), (member("etc", tarfile.DIRTYPE, mode=0o755), b"")])
    image_id = await store.images.import_image(
        pieces(gzip.compress(data)), reference="app:1", message="made", changes=['CMD ["/bin/app"]', "USER 7"]
    )
    image = await store.images.get("app:1")
    assert (image.meta.id, image.config.cmd, image.config.user) == (image_id, ("/bin/app",), "7")
    assert stat.S_IMODE((store.layer(image_id) / "bin/app").stat().st_mode) == 0o4755


@pytest.mark.parametrize("change", ["RUN ls", "EXPOSE x/tcp"])
async def test_a_bad_change_is_refused_before_anything_is_stored(store: Store, change: str) -> None:
    with pytest.raises(InvalidArgument):
        await store.images.import_image(pieces(archive([(member("a"), b"")])), reference="app:1", changes=[change])
    assert store.files() == []


async def test_rules_of_removal(store: Store) -> None:
    data = archive([(member("a"), b"a")])
    image_id = await store.images.import_image(pieces(data), reference="app:1")
    await store.images.tag("app:1", "app:2")
    removed = await store.images.remove("app:1")
    assert (removed.untagged, removed.deleted, removed.freed_bytes) == (("app:1",), (), 0)
    with pytest.raises(Conflict, match=r"is using its referenced image|is being used by"):
        await store.images.remove("app:2", users=lambda _: [("c" * 64, "c", True)])
    removed = await store.images.remove("app:2")
    assert (removed.untagged, removed.deleted[0], removed.freed_bytes) == (("app:2",), image_id, 1)
    assert store.files() == []
    with pytest.raises(NotFound, match="No such image: app:2"):
        await store.images.get("app:2")


async def test_a_full_disk_is_one_sentence_and_leaves_nothing(small_disk: Path) -> None:
    store = Store(small_disk / "images")
    await store.open()
    big = archive([(member("big"), random.Random(2).randbytes(8 << 20))])
    with pytest.raises(Exhausted, match=r"disk is full|no space"):
        await store.images.import_image(pieces(big), reference="big:1")
    assert store.files() == []
    small = await store.images.import_image(pieces(archive([(member("a"), b"a")])), reference="small:1")
    assert (store.layer(small) / "a").read_text() == "a"
    store.images.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from agent.image.images import Images

async def chunks(path):
    with open(path, "rb") as file:
        while data := file.read(65536):
            yield data

async def main(folder, path, saved):
    images = await Images.open(Path(folder))
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        await images.import_image(chunks(path), reference=f"app:{number}")
        await images.load(chunks(saved))
        if number > 2:
            await images.remove(f"app:{number - 2}")

asyncio.run(main(*sys.argv[1:]))
"""


async def saved(folder: Path, root: bytes) -> bytes:
    """An archive of an image with this root file system."""
    other = Store(folder)
    await other.open()
    await other.images.import_image(pieces(root), reference="saved:1")
    data = b"".join([piece async for piece in other.images.save(["saved:1"])])
    other.images.close()
    return data


async def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Whatever a killed agent was at, the next one has whole images and nothing else."""
    path = tmp_path / "root.tar"
    chance = random.Random(3)
    path.write_bytes(archive([(member(f"f{at}"), chance.randbytes(40_000)) for at in range(60)]))
    store = Store(tmp_path / "images")
    root = archive([(member(f"g{at}"), chance.randbytes(20_000)) for at in range(60)])
    (tmp_path / "saved.tar").write_bytes(await saved(tmp_path / "other", root))
    for _ in range(6):
        argv = [sys.executable, "-c", KILLED, str(store.folder), str(path), str(tmp_path / "saved.tar")]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOMS)})
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await asyncio.sleep(chance.uniform(0.02, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        images = await store.open()
        found = await images.list()
        for image in found:
            assert len(list(store.layer(image.meta.id).iterdir())) == 60
            await images.remove(image.meta.id, force=True)
        assert store.files() == []
        images.close()


class Source:
    """Another node, as `agent/image/peer.py` shows it."""

    def __init__(self, store: Store, *, damage: bool = False) -> None:
        self._store = store
        self._damage = damage

    async def open(self, digest: str, offset: int) -> tuple[int, str, AsyncIterator[bytes]]:
        size, media_type, chunks = await self._store.images.read_blob(digest, offset)
        return size, media_type, self._pieces(chunks)

    async def _pieces(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield bytes(len(chunk)) if self._damage else chunk


async def test_fetch_from_another_store_past_one_that_lies(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    await other.open()
    data = archive([(member("a"), b"a" * 100_000)])
    await other.images.import_image(pieces(data), reference="app:1")
    ((name, digest),) = other.images.held()
    with pytest.raises(ShoalError):
        await store.images.fetch("app:1", digest, [Source(other, damage=True)])
    assert store.files() == []
    pulled = await store.images.fetch("app:1", digest, [Source(other, damage=True), Source(other)])
    assert (name, pulled.digest) == ("docker.io/library/app:1", digest)
    assert (store.layer(pulled.image_id) / "a").stat().st_size == 100_000
    other.images.close()
