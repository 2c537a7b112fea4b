"""Bulletin: what all nodes of one network are told alike: the other nodes' parts, endpoints, and who answers there.

With a thousand nodes on a network each change goes to a thousand sessions: it is computed and encoded once here, and
a session takes what it has not sent yet, as bytes. Whoever knows of events says what may have changed (`touch`);
`settle` looks. Only the newest changes are kept: a session that has fallen behind them must begin anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from manager.dispatcher.encode import Change, encoded
from manager.dispatcher.reach import backend_of, endpoint_of, peer_of, services_on
from manager.store.view import View
from shoal.model.assignment import AssignedBackend, AssignedPeer, NetworkPeer
from shoal.model.network import Backend, Endpoint

# ("peer", node), ("endpoint", service) or ("backend", service, task).
Key: TypeAlias = tuple[str, ...]
Item: TypeAlias = AssignedPeer | Endpoint | AssignedBackend

KEPT_BYTES = 8 << 20
_ORDER = ("peer", "endpoint", "backend")


class Bulletin:
    """Of the network `network_id`. `position` counts the changes there ever were."""

    def __init__(self, view: View, network_id: str, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._view = view
        self._network_id = network_id
        self._kept_bytes = kept_bytes
        self._items: dict[Key, Item] = {}
        self._touched: set[Key] = set()
        self._all_touched = True
        self._news: deque[bytes] = deque()
        self._news_bytes = 0
        self.position = 0
        # Where a backend went away last: up to there, it matters when a node has carried this out.
        self.withdrew_at = 0
        # Everything as of a position that `news` still reaches.
        self._whole: tuple[int, list[bytes]] = (0, [])

    def touch(self, *keys: Key) -> None:
        """These may be different, new or gone."""
        self._touched.update(keys)

    def touch_all(self) -> None:
        self._all_touched = True

    def settle(self) -> bool:
        """Look at what was touched; whether anything of it has changed."""
        if not self._touched and not self._all_touched:
            return False
        keys = self._items.keys() | set(self._keys()) if self._all_touched else self._touched
        changes = list(self._changes(keys))
        self._touched, self._all_touched = set(), False
        for part in encoded(changes):
            self._news.append(part)
            self._news_bytes += len(part)
            self.position += 1
        if any(change.remove and isinstance(change.item, AssignedBackend) for change in changes):
            self.withdrew_at = self.position
        while self._news_bytes > self._kept_bytes and len(self._news) > 1:
            self._news_bytes -= len(self._news.popleft())
        return bool(changes)

    def since(self, position: int) -> list[bytes] | None:
        """The changes after `position`; None where they are not kept any more."""
        missing = self.position - position
        if missing > len(self._news):
            return None
        return list(self._news)[len(self._news) - missing :] if missing else []

    def whole(self) -> list[bytes]:
        """Everything, for a node that knows nothing yet."""
        position, parts = self._whole
        later = self.since(position)
        # Made anew only when what came since has become as long: nodes often come by the thousand.
        if later is None or len(later) > len(parts):
            self._whole = (self.position, encoded([Change(item) for item in self._ordered(self._items)]))
            return self._whole[1]
        return [*parts, *later]

    def removal(self) -> list[bytes]:
        """The end of everything, for a node that leaves the network."""
        return encoded([Change(_named(key, self._network_id), remove=True) for key in self._items])

    def _ordered(self, keys: Iterable[Key]) -> Iterator[Item]:
        for key in sorted(keys, key=lambda key: (_ORDER.index(key[0]), key)):
            yield self._items[key]

    def _changes(self, keys: Iterable[Key]) -> Iterator[Change]:
        """What is new or different, then what is gone."""
        gone = []
        for key in sorted(keys, key=lambda key: (_ORDER.index(key[0]), key)):
            now, before = self._look(key), self._items.get(key)
            if now is None and before is not None:
                del self._items[key]
                gone.append(Change(_named(key, self._network_id), remove=True))
            elif now is not None and now != before:
                self._items[key] = now
                yield Change(now)
        yield from reversed(gone)

    def _look(self, key: Key) -> Item | None:
        match key:
            case ("peer", node_id):
                return peer_of(self._view, self._network_id, node_id)
            case ("endpoint", service_id):
                return endpoint_of(self._view, self._network_id, service_id)
            case ("backend", service_id, task_id):
                return backend_of(self._view, self._network_id, service_id, task_id)
        raise AssertionError(key)

    def _keys(self) -> Sequence[Key]:
        """Of everything that there may be."""
        keys: list[Key] = [("peer", lease.node_id) for lease in self._view.leases_of_network(self._network_id)]
        for service_id in services_on(self._view, self._network_id):
            keys.append(("endpoint", service_id))
            keys += [("backend", service_id, task.meta.id) for task in self._view.tasks_of_service(service_id)]
        return keys


def _named(key: Key, network_id: str) -> Item:
    """What is known by `key`, with nothing but the ids."""
    match key:
        case ("peer", node_id):
            return AssignedPeer(network_id, NetworkPeer(node_id))
        case ("endpoint", service_id):
            return Endpoint(service_id=service_id, network_id=network_id)
        case ("backend", service_id, task_id):
            return AssignedBackend(service_id, network_id, Backend(task_id=task_id))
    raise AssertionError(key)
