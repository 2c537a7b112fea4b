"""The store on a disk that is really full: a tmpfs of 2 MiB in a mount namespace of its own."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.kernel

SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from manager.store.base import Put, Txn
from manager.store.sqlite import SqliteStore
from shoal.clock import SystemClock
from shoal.errors import Exhausted

def put(key, value):
    return Txn(puts=(Put(key, value),))

async def main(place):
    store = await SqliteStore.open(place / "store.db", clock=SystemClock())
    ballast = place / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    kept = 0
    try:
        for number in range(1000):
            await store.txn(put(f"/{number}", os.urandom(10_000)))
            kept += 1
    except Exhausted as error:
        print(error)
    assert 0 < kept < 1000, kept
    assert len((await store.read("/")).records) == kept
    ballast.unlink()
    await store.txn(put("/after", b"y" * 10_000))
    await store.close()
    store = await SqliteStore.open(place / "store.db", clock=SystemClock())
    records = (await store.read("/")).records
    assert len(records) == kept + 1, (len(records), kept)
    await store.close()
    print("whole")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    place = tmp_path / "disk"
    place.mkdir()
    shell = f'mount -t tmpfs -o size=2m shoal-test {place} && exec "$0" {script} {place}'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "the disk is full; free some space" in done.stdout
    assert done.stdout.endswith("whole\n")
