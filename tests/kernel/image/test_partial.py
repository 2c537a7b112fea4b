"""A pull that ended early, for whatever reason, goes on where it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from agent.image import images as module
from agent.image.partial import KEPT_S
from shoal.errors import ShoalError
from tests.kernel.image.conftest import BIG, Store, largest_blob, through
from tests.registry import Proxy, once

pytestmark = pytest.mark.kernel
ROOMS = Path(module.__file__).parents[2]
# Of the layer, before the connection breaks; a little less is on the disk then.
COME = 2 << 20
PULL = """
import asyncio, sys
from pathlib import Path
from agent.image.images import Images

async def main(folder, reference):
    await (await Images.open(Path(folder))).pull(reference)

asyncio.run(main(*sys.argv[1:]))
"""


class Way:
    """What is asked of the registry after a break."""

    def __init__(self, between: Proxy) -> None:
        self._between = between
        self._seen = len(between.asked)
        self.ranges: list[str] = []
        between.faults.append(self._note)

    async def _note(self, request: web.Request) -> None:
        if "/blobs/" in request.path:
            self.ranges.append(request.headers.get("Range", ""))

    def check(self) -> None:
        """One blob was asked for, from well behind its beginning; the other was here."""
        assert self._between.count("GET", "/blobs/") and len(self.ranges) == 1, self.ranges
        assert int(self.ranges[0].removeprefix("bytes=").removesuffix("-")) >= COME // 2


async def test_a_pull_that_failed_is_taken_up(store: Store, between: Proxy, big: str) -> None:
    digest = await largest_blob(store, between, big)
    away = False

    async def fail(request: web.Request) -> web.StreamResponse | None:
        nonlocal away
        if digest not in request.path:
            return None
        if away:
            return web.Response(status=404)
        away = True
        return await between.forward(request, None, cut_after=COME)

    between.faults = [fail]
    with pytest.raises(ShoalError):
        await store.images.pull(through(between))
    assert await store.images.list() == []
    between.faults.clear()
    way = Way(between)
    pulled = await store.images.pull(through(between))
    way.check()
    assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG
    assert not [name for name in store.files() if name.startswith("partial/")]


async def test_an_agent_that_was_killed_goes_on_when_it_is_back(store: Store, between: Proxy, big: str) -> None:
    digest = await largest_blob(store, between, big)
    store.images.close()
    killed = asyncio.Event()
    argv = [sys.executable, "-c", PULL, str(store.folder), through(between)]
    between.faults = [
        once("GET", digest, lambda request: between.forward(request, None, cut_after=COME, hold=killed.wait))
    ]
    process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOMS)})
    left = store.folder / "partial" / digest
    deadline = time.monotonic() + 60
    while not left.exists() or left.stat().st_size < COME // 2:
        assert time.monotonic() < deadline and process.poll() is None
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed.set()
    await store.open()
    assert await store.images.list() == []
    between.faults.clear()
    way = Way(between)
    pulled = await store.images.pull(through(between))
    way.check()
    assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG


async def test_what_was_left_wrong_is_got_anew_and_what_is_old_goes(store: Store, between: Proxy, big: str) -> None:
    digest = await largest_blob(store, between, big)
    left, old = store.folder / "partial" / digest, store.folder / "partial" / ("0" * 64)
    left.write_bytes(bytes(COME))
    old.write_bytes(b"old")
    os.utime(old, (time.time() - KEPT_S - 60,) * 2)
    pulled = await store.images.pull(through(between))
    assert (store.layer(pulled.image_id) / "big").read_bytes() == BIG
    assert not old.exists() and not left.exists()
