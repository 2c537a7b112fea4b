"""What nobody needs goes, and nothing else, whoever is at work at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from agent.image.removal import User
from shoal import digest as digests
from shoal.errors import Conflict, NotFound
from tests.kernel.image.conftest import Store, archive, member, pieces

pytestmark = pytest.mark.kernel
ROUNDS = 6
IN_USE = ("c" * 64, "web", False)


def check_whole(store: Store) -> int:
    """Every image has all of its content, and nothing else is there; how many images there are."""
    holdings = store.images._holdings
    blobs: set[str] = set()
    for record in holdings.catalog.images.values():
        blobs |= set(record.blobs)
        for folder in store.images.layers(record.id):
            assert Path(folder).is_dir()
    there = {path.name: path for path in (store.folder / "blobs/sha256").iterdir()}
    assert {f"sha256:{name}" for name in there} == blobs
    for name, path in there.items():
        assert digests.of(path.read_bytes()) == f"sha256:{name}"
    for folder in ("ingest", "unpack", "trash"):
        assert list((store.folder / folder).iterdir()) == []
    return len(holdings.catalog.images)


async def test_loads_imports_saves_and_prunes_at_once(store: Store) -> None:
    chance = random.Random(4)
    roots = [archive([(member(f"f{at}"), chance.randbytes(3000))] * 5) for at in range(3)]
    used = await store.images.import_image(pieces(roots[0]), reference="used:1")
    for at, root in enumerate(roots):
        await store.images.import_image(pieces(root), reference=f"app:{at}")
    saved = b"".join([piece async for piece in store.images.save(["app"])])

    def users(image_id: str) -> list[User]:
        return [IN_USE] if image_id == used else []

    async def load() -> None:
        for _ in range(ROUNDS):
            assert len(await store.images.load(pieces(saved))) == 3

    async def bring(at: int) -> None:
        for number in range(ROUNDS):
            name = f"own:{at}-{number}"
            image_id = await store.images.import_image(pieces(roots[number % 3]), reference=name)
            with contextlib.suppress(NotFound, Conflict):
                await store.images.remove(name, users=users)
            assert image_id

    async def save() -> None:
        for _ in range(ROUNDS):
            with contextlib.suppress(NotFound):
                assert [piece async for piece in store.images.save(["app:1", "used:1"])]
            await asyncio.sleep(0)

    async def prune() -> None:
        for _ in range(4 * ROUNDS):
            await store.images.prune(all=True, chosen=lambda _: True, users=users)
            assert all(Path(folder).is_dir() for folder in store.images.layers(used))
            await asyncio.sleep(0.01)

    await asyncio.gather(load(), load(), bring(1), bring(2), save(), prune())
    check_whole(store)
    await store.images.prune(all=True, chosen=lambda _: True, users=users)
    assert check_whole(store) == 1
    await store.images.prune(all=True, chosen=lambda _: True, users=lambda _: [])
    assert store.files() == []


async def test_a_prune_tells_what_it_frees_and_takes_only_what_was_chosen(store: Store) -> None:
    one, two = archive([(member("a"), b"a" * 1000)]), archive([(member("b"), b"b" * 500)])
    await store.images.import_image(pieces(one), changes=["LABEL keep=yes"])
    image_id = await store.images.import_image(pieces(two), reference="app:1")
    everything = {"chosen": lambda _: True, "users": lambda _: []}
    assert await store.images.prune(all=False, chosen=lambda image: not image.config.labels, users=lambda _: []) == []
    (removed,) = await store.images.prune(all=False, **everything)
    assert (removed.untagged, len(removed.deleted), removed.freed_bytes) == ((), 2, 1000)
    assert await store.images.prune(all=False, **everything) == []
    (removed,) = await store.images.prune(all=True, **everything)
    assert (removed.untagged, removed.deleted[0], removed.freed_bytes) == (("app:1",), image_id, 500)
