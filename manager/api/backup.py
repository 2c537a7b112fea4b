"""Calls on backups of the cluster: all of it as one file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.room import Room
from manager.ca import passphrase
from manager.ca.escrow import carried
from manager.store.backup import packed
from shoal import __version__
from shoal.backup import Header
from shoal.errors import Compacted, Unavailable
from shoal.v1 import control_pb2 as wire

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20


class BackupCalls:
    _room: Room

    async def BackupCluster(
        self, request: wire.BackupClusterRequest, _context: Context
    ) -> AsyncIterator[wire.BackupClusterResponse]:
        room, cluster = self._room, self._room.mirror.cluster
        assert cluster is not None  # who serves has one
        seal = None
        if request.passphrase:
            passphrase.check(request.passphrase)
            seal = await asyncio.to_thread(passphrase.locked_with, request.passphrase, room.seal.key)
        bare = Header(
            cluster_id=cluster.meta.id,
            revision=0,
            taken_at_ns=room.clock.now_ns(),
            store=room.store.kind,
            version=__version__,
            compressed=not request.uncompressed,
            seal=seal,
        )
        header = carried(bare, cluster, room.seal)
        opens = header.seal is not None or bool(header.locked_seal)
        await room.note("with the cluster's key, locked" if opens else "")
        try:
            async for data in packed(room.store, header):
                for at in range(0, len(data), _CHUNK_BYTES):
                    yield wire.BackupClusterResponse(data=data[at : at + _CHUNK_BYTES])
        except Compacted as error:
            raise Unavailable(
                "the store forgot the revision that the backup is of before all was read", hint="try again"
            ) from error
        log.info("backup taken with_seal=%s", opens)
