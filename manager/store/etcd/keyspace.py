"""Keyspace: our keys below a prefix of etcd's, and etcd's messages as the port's values. No I/O.

One key there is the store's own, MARK: it is written to have a revision that every watch sees, and shown to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.store.base import Change, Record
from shoal.etcd.v3 import wire_pb2 as wire

MARK = "/.mark"


class Keyspace:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/").encode()
        self._mark = self.full(MARK)

    def full(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def after(self, prefix: str) -> bytes:
        """The first key behind all that begin with `prefix`. UTF-8 never has the byte 255, so there is one."""
        full = self.full(prefix)
        return full[:-1] + bytes([full[-1] + 1])

    def records(self, kvs: Iterable[wire.KeyValue]) -> tuple[Record, ...]:
        return tuple(
            Record(self._short(kv.key), kv.value, kv.mod_revision, kv.create_revision)
            for kv in kvs
            if kv.key != self._mark
        )

    def changes(self, events: Iterable[wire.Event]) -> tuple[Change, ...]:
        return tuple(
            Change(
                self._short(event.kv.key),
                None if event.type == wire.Event.TYPE_DELETE else event.kv.value,
                event.kv.mod_revision,
            )
            for event in events
            if event.kv.key != self._mark
        )

    def _short(self, full: bytes) -> str:
        return full[len(self._prefix) :].decode()
