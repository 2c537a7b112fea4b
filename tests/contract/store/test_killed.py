"""Acknowledged means durable: a writer is killed in the middle of its work, several times over."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock

WRITER = Path(__file__).with_name("writer.py")


@pytest.mark.parametrize("implementation", ["sqlite"])
async def test_every_acknowledged_revision_survives_kill_9(implementation, tmp_path):
    place = tmp_path / "store.db"
    promised: dict[str, int] = {}
    for lines in (40, 400, 150):
        promised |= await asyncio.to_thread(written_until_killed, implementation, place, lines)
        store = await SqliteStore.open(place, clock=ManualClock())
        snapshot = await store.read("/")
        found = {record.key: record.mod_revision for record in snapshot.records}
        assert promised.items() <= found.items()
        await whole_transactions(store, snapshot)
        await store.close()


def written_until_killed(implementation: str, place: Path, lines: int) -> dict[str, int]:
    """The revisions that a writer was promised before SIGKILL came."""
    command = [sys.executable, str(WRITER), implementation, str(place)]
    promised = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        for _ in range(lines):
            revision, key = writer.stdout.readline().split()
            promised[key] = int(revision)
        writer.kill()
        for line in writer.stdout:
            if line.endswith("\n"):
                revision, key = line.split()
                promised[key] = int(revision)
    return promised


async def whole_transactions(store, snapshot) -> None:
    """No half of a transaction is there, and the log tells the same story as the records."""
    keys = {record.key for record in snapshot.records}
    for record in snapshot.records:
        if record.key.startswith("/last/"):
            assert record.value.decode() in keys
    async with asyncio.timeout(60):
        last = 0
        async for commit in store.watch("/", after=0):
            assert commit.revision == last + 1 and len(commit.changes) == 2
            last = commit.revision
            if last == snapshot.revision:
                break
