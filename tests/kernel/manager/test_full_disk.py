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
from manager.store.sqlite.store import SqliteStore
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


OPENING = """
import asyncio, sys
from pathlib import Path
from manager.store.base import Put, Txn
from manager.store.sqlite.store import SqliteStore
from shoal.clock import SystemClock
from shoal.errors import Exhausted

async def main(place):
    store = await SqliteStore.open(place / "store.db", clock=SystemClock())
    await store.txn(Txn(puts=(Put("/kept", b"x" * 10_000),)))
    await store.close()
    with open(place / "ballast", "ab", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            pass
    for name in ("store.db", "new.db"):
        try:
            await SqliteStore.open(place / name, clock=SystemClock())
        except Exhausted as error:
            print(error)
    (place / "ballast").unlink()
    for name in ("store.db", "new.db"):
        store = await SqliteStore.open(place / name, clock=SystemClock())
        print([record.key for record in (await store.read("/")).records])
        await store.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    done = on_a_small_disk(tmp_path, SCRIPT)
    assert "the disk is full; free some space" in done
    assert done.endswith("whole\n")


def test_opening_on_a_full_disk_says_so_and_harms_nothing(tmp_path):
    lines = on_a_small_disk(tmp_path, OPENING).splitlines()
    assert len(lines) == 4
    assert all("the disk is full; free some space" in line for line in lines[:2])
    assert lines[2:] == ["['/kept']", "[]"]


def on_a_small_disk(tmp_path, script_text: str) -> str:
    """What a script prints that is given the path of one."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(script_text))
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
    return done.stdout
