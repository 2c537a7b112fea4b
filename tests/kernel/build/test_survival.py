"""Builds that are broken off, that find no room, and that run beside each other."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.build.context import Contexts
from agent.build.job import Job
from agent.build.report import Began, Event, Wrote
from agent.build.tree import Tree
from agent.image import catalog
from agent.image.gc import needed
from shoal import reference as references
from shoal.errors import Exhausted, ShoalError
from shoal.settings import Paths
from tests.kernel.build import churn
from tests.kernel.build.test_build import write
from tests.kernel.container.conftest import ROOMS, Engine, Shell, drained, end_keeper

pytestmark = pytest.mark.kernel
UUID = "/proc/sys/kernel/random/uuid"


def job(text: str, **how: object) -> Job:
    return Job(dockerfile=text, name="Dockerfile", tree=Tree(()), **how)


async def ignore(_event: Event) -> None:
    pass


def left(engine: Engine) -> list[str]:
    """What lies in folders of the moment."""
    data = engine.paths.data
    folders = [data / "images" / each for each in ("steps", "unpack", "ingest", "trash")]
    folders += [data / "build" / "context" / "fresh", engine.paths.run / "build"]
    return [str(path) for folder in folders if folder.exists() for path in folder.iterdir()]


async def test_an_agent_that_is_killed_leaves_nothing_and_the_next_one_builds_on(engine: Engine) -> None:
    text = "FROM busybox\nRUN echo kept > /kept\nRUN echo begun && touch /half && sleep 1000\n"
    await engine.builder.build(job("FROM busybox\nRUN echo kept > /kept\n"), ignore)
    begun = asyncio.Event()

    async def tell(event: Event) -> None:
        if isinstance(event, Wrote) and b"begun" in event.data:
            begun.set()

    building = asyncio.ensure_future(engine.builder.build(job(text), tell))
    await asyncio.wait_for(begun.wait(), 60)
    running = list(await engine.runtime.list())
    assert len(running) == 1
    # What kill -9 leaves: the container runs on, its folders are there, nothing was put away.
    await engine.restart()
    assert await engine.runtime.list() == {}
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    assert left(engine) == []
    began: list[str] = []

    async def note(event: Event) -> None:
        if isinstance(event, Began):
            began.append(event.title)

    image_id = await engine.builder.build(job(text.replace("sleep 1000", "true")), note)
    assert (await engine.images.get(image_id)).meta.id == image_id
    assert len(began) == 4


async def test_a_client_that_goes_ends_its_build(engine: Engine, shell: Shell, tmp_path: Path) -> None:
    folder = write(tmp_path / "app", Dockerfile="FROM busybox\nRUN echo begun && sleep 1000\n")
    process = await shell.start("build", "--progress", "plain", str(folder))
    assert process.stderr is not None
    while b"begun\n" not in (line := await asyncio.wait_for(process.stderr.readline(), 60)) or b"RUN" in line:
        assert line
    assert len(await engine.runtime.list()) == 1
    process.kill()
    await process.wait()
    async with asyncio.timeout(60):
        while await engine.runtime.list() or left(engine):
            await asyncio.sleep(0.05)


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine whose data are on a file system of 16 MiB."""
    data = tmp_path / "small"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(data)], check=True)
    engine = Engine(Paths(data=data, run=tmp_path / "run"))
    await engine.open()
    try:
        await engine.add("busybox")
        yield engine
    finally:
        await engine.close()
        end_keeper(engine.paths.run)
        subprocess.run(["umount", str(data)], check=True)


async def test_a_full_disk_is_told_and_frees_what_the_step_wrote(small: Engine) -> None:
    with pytest.raises(ShoalError, match="did not complete successfully: exit code: 1"):
        await small.builder.build(job("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=20\n"), ignore)
    with pytest.raises(Exhausted, match="no space left on device"):  # room for the files, none for their archive
        await small.builder.build(job("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=7\n"), ignore)
    assert left(small) == []
    await small.builder.build(job("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=1\n"), ignore)


async def test_a_full_disk_under_a_context_is_exhausted(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(folder)], check=True)
    try:
        contexts = Contexts(folder / "context")
        with contexts.using("", ()):
            with pytest.raises(Exhausted, match="no space left on device"):
                contexts.store(bytes(2 << 20))
            assert contexts.store(b"small") in contexts._known
        assert [each for each in (folder / "context").rglob("*") if each.is_file()] == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_two_builds_share_their_steps_and_a_prune_beside_them_takes_nothing_away(engine: Engine) -> None:
    text = f"FROM busybox\nRUN cat {UUID} > /when && sleep 0.3\nRUN cat /when > /again\nRUN sleep 0.3\n"
    tag = (references.parse("twin:1"),)
    pruned = 0

    async def prune() -> None:
        nonlocal pruned
        while True:
            await engine.builder.prune(unused_s=0)
            pruned += 1
            await asyncio.sleep(0.05)

    pruning = asyncio.ensure_future(prune())
    one, two = await asyncio.gather(
        engine.builder.build(job(text, tags=tag), ignore), engine.builder.build(job(text + "LABEL a=b\n"), ignore)
    )
    pruning.cancel()
    await asyncio.gather(pruning, return_exceptions=True)
    assert pruned
    for image_id in (one, two):
        code, out, err = await engine.output("cat", "/again", image=image_id)
        assert (code, err) == (0, b"")
        assert re.fullmatch(rb"[0-9a-f-]{36}\n", out)


async def test_builds_and_prunes_are_killed_at_any_moment(engine: Engine) -> None:
    """Every time what is left is whole: nothing runs or lies about, what was in use is there, and builds go on."""
    await engine.builder.build(job("FROM busybox\nRUN echo mine > /mine\n", tags=(references.parse("used:1"),)), ignore)
    container = await engine.run("cat", "/mine", image="used:1", start=False)
    await engine.images.remove("used:1", force=True, users=engine.containers.image_users)
    await engine.close()
    program = [sys.executable, churn.__file__, str(engine.paths.data), str(engine.paths.run), engine.cgroup]
    environment = {**os.environ, "PYTHONPATH": str(ROOMS)}
    chance = random.Random(11)
    for _ in range(4):
        process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 60)):
            assert await asyncio.to_thread(process.stdout.readline)
        process.kill()
        process.wait()
        process.stdout.close()
        await engine.open()
        assert await engine.runtime.list() == {}
        assert left(engine) == []
        check_whole(engine)
        await engine.close()
    await engine.open()
    attachment = await engine.containers.visits.attach(container.meta.id, start=True)
    assert await drained(attachment) == (0, b"mine\n", b"")
    for name in ("one", "two"):
        await engine.builder.build(job(churn.TEXT, tags=(references.parse(name),)), ignore)
        code, out, _ = await engine.output("cat", "/again", image=name)
        assert (code, len(out)) == (0, 37)
    for each in await engine.containers.list(all=True):
        await engine.containers.remove(each.meta.id)
    await engine.builder.prune(unused_s=0)
    await engine.images.prune(all=True, chosen=lambda _: True, users=engine.containers.image_users)
    assert [*(engine.paths.images / "blobs/sha256").iterdir(), *(engine.paths.images / "l").iterdir()] == []


def check_whole(engine: Engine) -> None:
    """What is on the disk is what images and kept layers need, no more and no less."""
    images = engine.paths.images
    blobs, layers = needed(catalog.load(images / "images.json"))
    assert {f"sha256:{each.name}" for each in (images / "blobs/sha256").iterdir()} == blobs
    assert {each.name for each in (images / "l").iterdir()} == layers


async def test_prune_frees_what_no_image_has(engine: Engine) -> None:
    text = "FROM busybox\nRUN head -c 1000000 /dev/zero > /big\n"
    image_id = await engine.builder.build(job(text), ignore)
    layers = engine.images.workbench.kept()
    assert len(layers) == 1
    await engine.images.remove(image_id)
    again = await engine.builder.build(job(text), ignore)
    assert again == image_id  # its steps had stayed
    await engine.images.remove(image_id)
    pruned = await engine.builder.prune(unused_s=3600)
    assert (pruned.titles, pruned.freed_bytes) == ((), 0)
    pruned = await engine.builder.prune(unused_s=0)
    assert pruned.titles == ("RUN head -c 1000000 /dev/zero > /big",)
    assert pruned.freed_bytes == 1_000_000
    assert engine.images.workbench.kept() == {}
    assert len(list((engine.paths.images / "l").iterdir())) == 1


async def test_what_a_cache_mount_keeps_is_shown_and_stays_while_a_command_has_it(engine: Engine) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=cache,target=/p,sharing=private "
        "head -c 1000 /dev/zero > /c/kept && touch /p/mine && while [ ! -e /c/go ]; do sleep 0.05; done && "
        "stat /c/kept /p/mine\n"
    )
    kept = engine.paths.data / "build" / "mounts" / "kept"
    building = asyncio.ensure_future(engine.builder.build(job(text), ignore))
    async with asyncio.timeout(120):
        while not (found := [*kept.glob("*/mine"), *kept.glob("*/kept")])[1:]:
            await asyncio.sleep(0.02)
    assert (await engine.builder.prune(unused_s=0)).freed_bytes == 0
    (found[1].parent / "go").touch()
    await building
    shown = {each.title: each for each in await engine.builder.usage() if each.kind == "exec.cachemount"}
    assert {title: each.size_bytes for title, each in shown.items()} == {"cache mount /c": 1000, "cache mount /p": 0}
    assert (await engine.builder.prune(unused_s=3600)).titles == ()
    pruned = await engine.builder.prune(unused_s=0)
    assert {"cache mount /c", "cache mount /p"} < {*pruned.titles} and pruned.freed_bytes == 1000
    assert not [*kept.iterdir()]


async def test_a_build_that_is_done_twice_is_done_by_one(engine: Engine) -> None:
    text = f"FROM busybox\nRUN cat {UUID} > /when && sleep 0.2\n"
    found = await asyncio.gather(*(engine.builder.build(job(text), ignore) for _ in range(3)))
    assert len(set(found)) == 1
