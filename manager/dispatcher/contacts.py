"""Contacts: the sessions that a manager has, or had, with nodes, by when each was heard last. `judgement` says what
follows for a node; looking for those that may be due costs what they are, not how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Set

import msgspec

from manager.dispatcher.judgement import Contact


class Contacts:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        # Whose stream stands, those that were heard longest ago first; and whose broke.
        self._whole: dict[str, Contact] = {}
        self._broken: dict[str, Contact] = {}

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._whole or node_id in self._broken

    def get(self, node_id: str) -> Contact | None:
        return self._whole.get(node_id) or self._broken.get(node_id)

    def stands(self, node_id: str) -> bool:
        """Whether the node's stream is there."""
        return node_id in self._whole

    def heard(self, node_id: str, now: float) -> None:
        """A sign of life."""
        self.forget(node_id)
        self._whole[node_id] = Contact(now)

    def broke(self, node_id: str, now: float, *, back_by: float | None = None) -> None:
        """The stream of a node that is known ended; its agent may have said that it is back by a certain time."""
        if (contact := self._whole.pop(node_id, None)) is not None:
            self._broken[node_id] = Contact(contact.heard_at, now, back_by)

    def left_alone(self) -> Iterator[str]:
        """Nodes whose stream ended without a word of when they are back."""
        return (id for id, contact in self._broken.items() if contact.back_by is None)

    def answered(self, node_id: str, now: float) -> None:
        """The host of a node that was left alone lives."""
        if (contact := self._broken.get(node_id)) is not None:
            self._broken[node_id] = msgspec.structs.replace(contact, answered_at=now)

    def forget(self, node_id: str) -> None:
        self._whole.pop(node_id, None)
        self._broken.pop(node_id, None)

    def doubtful(self, among: Set[str], before: float) -> Iterator[str]:
        """Of these nodes, all but those whose stream stands and that were heard after `before`."""
        for node_id, contact in self._whole.items():
            if contact.heard_at > before:
                break
            if node_id in among:
                yield node_id
        yield from among - self._whole.keys()

    def keep(self, node_ids: Set[str]) -> None:
        """Forget all others."""
        for node_id in [*(self._whole.keys() - node_ids), *(self._broken.keys() - node_ids)]:
            self.forget(node_id)

    def postpone(self, seconds: float) -> None:
        """Everything happened that much later."""
        self._whole = {id: Contact(each.heard_at + seconds) for id, each in self._whole.items()}
        self._broken = {id: _later(each, seconds) for id, each in self._broken.items()}


def _later(contact: Contact, seconds: float) -> Contact:
    times = msgspec.structs.asdict(contact)
    return msgspec.convert({name: at if at is None else at + seconds for name, at in times.items()}, Contact)
