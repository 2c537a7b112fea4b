"""Volumes on a real disk: made once, filled once, and whole or gone after a crash at any point."""

import asyncio
import os

import pytest

from agent.volume.volumes import Volumes
from shoal.errors import Conflict, InvalidArgument, NotFound


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "volumes"


@pytest.fixture
async def volumes(folder):
    return await Volumes.open(folder)


def copying(**files):
    def copy(destination):
        destination.mkdir()
        for name, text in files.items():
            (destination / name).write_text(text)
        return True

    return copy


async def test_create_twice_is_the_same_volume(volumes):
    first = await volumes.create("data", {"a": "b"})
    assert await volumes.create("data") == first
    assert first.labels == {"a": "b"}
    assert os.path.isdir(first.mountpoint)


async def test_without_a_name_it_is_anonymous(volumes):
    volume = await volumes.create()
    assert volume.anonymous
    assert len(volume.name) == 64


@pytest.mark.parametrize(
    ("name", "words"),
    [("x", "too short"), *((each, "invalid characters") for each in ("../x", "a/b", "-a", ".trash", "a\n", "x" * 300))],
)
async def test_bad_names(volumes, name, words):
    with pytest.raises(InvalidArgument, match=words):
        await volumes.create(name)


async def test_it_is_there_after_a_restart(volumes, folder):
    made = await volumes.create("data", {"a": "b"})
    (volumes.path("data") / "x").write_text("x")
    again = await Volumes.open(folder)
    assert again.list() == [made]
    assert (again.path("data") / "x").read_text() == "x"


async def test_remove(volumes, folder):
    await volumes.create("data")
    await volumes.remove("data")
    assert volumes.list() == []
    assert not (folder / "data").exists()
    with pytest.raises(NotFound, match="no such volume"):
        await volumes.remove("data")
    await volumes.remove("data", force=True)


async def test_a_volume_in_use_stays_and_says_who(volumes):
    await volumes.create("data")
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        await volumes.remove("data", ["c1", "c2"], force=True)
    assert volumes.get("data")


async def test_an_empty_volume_is_filled_once(volumes):
    await volumes.create("data")
    await volumes.fill("data", copying(a="1"))
    await volumes.fill("data", copying(b="2"))
    assert os.listdir(volumes.path("data")) == ["a"]


async def test_two_who_fill_at_once_wait_for_each_other(volumes):
    await volumes.create("data")
    await asyncio.gather(*(volumes.fill("data", copying(**{name: name})) for name in "abcd"))
    assert len(os.listdir(volumes.path("data"))) == 1


async def test_nothing_to_copy_leaves_it_empty(volumes):
    await volumes.create("data")
    await volumes.fill("data", lambda _: False)
    assert os.listdir(volumes.path("data")) == []


async def test_a_failed_copy_leaves_it_empty(volumes, folder):
    await volumes.create("data")

    def copy(destination):
        copying(half="1")(destination)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await volumes.fill("data", copy)
    assert os.listdir(volumes.path("data")) == []
    assert sorted(os.listdir(folder / "data")) == ["_data", "volume"]


async def test_a_crash_while_copying_leaves_it_empty(volumes, folder):
    await volumes.create("data")
    copying(half="1")(folder / "data/copying")
    again = await Volumes.open(folder)
    assert os.listdir(again.path("data")) == []
    assert not (folder / "data/copying").exists()


async def test_a_crash_while_moving_in_is_finished(volumes, folder):
    await volumes.create("data")
    copying(a="image", b="image")(folder / "data/copied")
    (folder / "data/copied").chmod(0o750)
    (volumes.path("data") / "a").write_text("mine")
    again = await Volumes.open(folder)
    assert (again.path("data") / "a").read_text() == "mine"
    assert (again.path("data") / "b").read_text() == "image"
    assert again.path("data").stat().st_mode & 0o777 == 0o750
    assert sorted(os.listdir(folder / "data")) == ["_data", "volume"]


async def test_a_crash_while_removing_leaves_nothing(volumes, folder):
    await volumes.create("data")
    (folder / "data").rename(folder / ".trash/data.1")
    again = await Volumes.open(folder)
    assert again.list() == []
    assert [str(path.relative_to(folder)) for path in folder.rglob("*")] == [".trash"]


async def test_a_volume_without_record_keeps_its_data(volumes, folder):
    await volumes.create("data")
    await volumes.create("empty")
    (volumes.path("data") / "x").write_text("x")
    for name in ("data", "empty"):
        (folder / name / "volume").unlink()
    again = await Volumes.open(folder)
    assert [each.name for each in again.list()] == ["data"]
    assert (again.path("data") / "x").read_text() == "x"


async def test_a_record_that_cannot_be_read_is_left_alone(volumes, folder):
    await volumes.create("data")
    (folder / "data/volume").write_bytes(b"\x99 from the future")
    again = await Volumes.open(folder)
    assert again.list() == []
    assert (folder / "data/_data").is_dir()
