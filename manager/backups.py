"""Backups: the leader takes them by the cluster's schedule, onto the disk of its own host.

A backup has its name once it was written, synced and read back; what was killed before is swept. What became of the
last one stands in the Cluster record, where `info` and `doctor` find it. Only files of this cluster are ever removed,
and none while the newest cannot be taken.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from manager.ca.authority import Seal
from manager.ca.escrow import carried
from manager.control.action import change, commit, touched
from manager.schedule import due_ns
from manager.store.backup import packed
from manager.store.base import Store
from manager.store.mirror import Mirror
from shoal import __version__
from shoal.backup import Header, examined
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.ids import short
from shoal.model.cluster import BackupStatus, Cluster

log = logging.getLogger(__name__)

LOOK_S = 1.0
_SUFFIX = ".backup"
_UNFINISHED = ".part"


class Backups:
    """`leads` says whether this manager, on the node `own_id`, is the one that takes them."""

    def __init__(
        self, store: Store, mirror: Mirror, seal: Seal, *, own_id: str, leads: Callable[[], bool], clock: Clock
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._seal = seal
        self._own_id = own_id
        self._leads = leads
        self._clock = clock

    async def run(self) -> None:
        """Take what is due, for as long as the manager lives."""
        while True:
            await self._clock.sleep(LOOK_S)
            cluster = self._mirror.cluster
            if cluster is None or not cluster.spec.backup_schedule or not self._leads():
                continue
            if due_ns(cluster.spec.backup_schedule, cluster.backup) <= self._clock.now_ns():
                await self._note(await self._attempt(cluster))

    async def _attempt(self, cluster: Cluster) -> BackupStatus:
        """What there is to say of the backups after another try."""
        now_ns = self._clock.now_ns()
        try:
            path = await self._take(cluster, now_ns)
        except (ShoalError, OSError) as error:
            why = str(error) if isinstance(error, ShoalError) else f"{cluster.spec.backup_dir}: {error.strerror}"
            log.error("the backup that is due cannot be taken: %s", why)
            return msgspec.structs.replace(cluster.backup, failed_at_ns=now_ns, error=why)
        log.info("backup taken path=%s", path)
        return BackupStatus(now_ns, str(path), path.stat().st_size, self._own_id)

    async def _take(self, cluster: Cluster, now_ns: int) -> Path:
        folder = Path(cluster.spec.backup_dir)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.glob(f"{_stem(cluster)}*{_UNFINISHED}"):
            left.unlink(missing_ok=True)
        path = folder / name_of(cluster, now_ns)
        beside = path.with_name(path.name + _UNFINISHED)
        header = carried(Header(cluster.meta.id, 0, now_ns, self._store.kind, __version__), cluster, self._seal)
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                async for data in packed(self._store, header):
                    await asyncio.to_thread(file.write, data)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            await asyncio.to_thread(examined, beside)
            beside.rename(path)
        finally:
            beside.unlink(missing_ok=True)
        for old in surplus(cluster, (each.name for each in folder.iterdir()), cluster.spec.backup_keep):
            (folder / old).unlink(missing_ok=True)
        return path

    async def _note(self, status: BackupStatus) -> None:
        """Write it down. What cannot be written now is found out again by another backup."""
        cluster = self._mirror.cluster
        if cluster is None:
            return
        changed = msgspec.structs.replace(touched(cluster, self._clock.now_ns()), backup=status)
        try:
            done = await commit(self._store, [change(changed, "backups")])
            await self._mirror.reached(done.revision)
        except ShoalError as error:
            log.error("what became of the backup cannot be written down: %s", error)
            await self._clock.sleep(10 * LOOK_S)


def name_of(cluster: Cluster, now_ns: int) -> str:
    """Names of one cluster sort by time."""
    return _stem(cluster) + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns // 1_000_000_000)) + _SUFFIX


def surplus(cluster: Cluster, names: Iterable[str], keep: int) -> Sequence[str]:
    """Those of the cluster's backups that are too many, oldest first. One is always kept."""
    own = sorted(name for name in names if name.startswith(_stem(cluster)) and name.endswith(_SUFFIX))
    return own[: -max(keep, 1)]


def _stem(cluster: Cluster) -> str:
    return f"shoal-{short(cluster.meta.id)}-"
