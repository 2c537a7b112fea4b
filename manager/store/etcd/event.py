"""Events of a watch joined to whole commits. No I/O.

etcd may answer in parts, and a part may end in the middle of a revision. That is whole once a later one begins, or the
last part is there, and only then does it count.
"""

from __future__ import annotations

from collections.abc import Iterator

from manager.store.base import Commit
from manager.store.etcd.keyspace import Keyspace
from shoal.etcd.v3 import wire_pb2 as wire


class Joint:
    """Commits above the revision `after`; what came before is left out."""

    def __init__(self, keyspace: Keyspace, after: int) -> None:
        self._keyspace = keyspace
        self._after = after
        self._open: list[wire.Event] = []

    def whole(self, answer: wire.WatchResponse) -> Iterator[Commit]:
        """The commits that `answer` completes, in order."""
        for event in answer.events:
            revision = event.kv.mod_revision
            if revision <= self._after:
                continue
            if self._open and self._open[0].kv.mod_revision != revision:
                yield self._closed()
            self._open.append(event)
        if self._open and not answer.fragment:
            yield self._closed()

    def _closed(self) -> Commit:
        events, self._open = self._open, []
        self._after = events[0].kv.mod_revision
        return Commit(self._after, self._keyspace.changes(events))
