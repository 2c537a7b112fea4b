"""Files that the kernel syncs while the loop goes on."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.syncs import Syncs


@pytest.fixture(params=[8, 0], ids=["kernel", "threads"])
async def syncs(request: pytest.FixtureRequest) -> Iterator[Syncs]:
    """One that the kernel has room for, and one that it has none for: io_setup(2) refuses a room for nothing."""
    made = Syncs(request.param)
    yield made
    made.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made._told)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    made = [os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT) for number in range(40)]
    for each in made:
        os.write(each, b"data")
    yield made
    for each in made:
        os.close(each)


async def test_files_and_folders_are_synced(syncs: Syncs, files: list[int], tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    await syncs.sync(files[0], folder)
    await syncs.sync(folder)
    os.close(folder)


async def test_more_at_once_than_the_kernel_has_room_for(syncs: Syncs, files: list[int]) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(syncs.sync(*files), *(syncs.sync(each) for each in files))


async def test_what_cannot_be_synced_is_told_and_harms_nobody_else(syncs: Syncs, files: list[int]) -> None:
    reader, writer = os.pipe()
    try:
        for descriptors in ([reader], [files[0], reader], [reader, files[0]]):
            with pytest.raises(OSError, match="Invalid argument") as failed:
                await syncs.sync(*descriptors)
            assert failed.value.errno == errno.EINVAL
    finally:
        os.close(reader)
        os.close(writer)
    await syncs.sync(files[0])


async def test_who_leaves_early_may_close_what_is_being_synced(syncs: Syncs, files: list[int], tmp_path: Path) -> None:
    own = os.open(tmp_path / "own", os.O_WRONLY | os.O_CREAT)
    waiting = asyncio.create_task(syncs.sync(own))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(own)
    await syncs.sync(*files)
