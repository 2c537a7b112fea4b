"""Inventory: which node that is connected here holds which image. In memory only: every session begins with the whole
list. What the other managers' nodes hold, `holders` asks them.

It lets a node that lacks an image fetch it from another (`DispatcherService.LocateImage`), and lets the API pin a
service to the digest that the cluster already holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Held(msgspec.Struct, frozen=True):
    """`reference` is canonical; empty for an untagged image."""

    reference: str
    manifest_digest: str


class Inventory:
    def __init__(self) -> None:
        self._held: dict[str, tuple[Held, ...]] = {}
        # Reference → node → digest, and digest → nodes.
        self._by_reference: dict[str, dict[str, str]] = {}
        self._by_digest: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Of how many nodes it is known what they hold."""
        return len(self._held)

    def put(self, node_id: str, images: Iterable[Held]) -> None:
        """This is all that `node_id` holds now."""
        self.drop(node_id)
        held = tuple(images)
        self._held[node_id] = held
        for image in held:
            if image.reference:
                self._by_reference.setdefault(image.reference, {})[node_id] = image.manifest_digest
            self._by_digest.setdefault(image.manifest_digest, set()).add(node_id)

    def drop(self, node_id: str) -> None:
        """The node cannot be asked any more."""
        for image in self._held.pop(node_id, ()):
            if nodes := self._by_reference.get(image.reference):
                nodes.pop(node_id, None)
                if not nodes:
                    del self._by_reference[image.reference]
            if holders := self._by_digest.get(image.manifest_digest):
                holders.discard(node_id)
                if not holders:
                    del self._by_digest[image.manifest_digest]

    def locate(self, reference: str, manifest_digest: str) -> list[tuple[str, str]]:
        """(node id, digest) of who holds the image, by node id. A digest counts more than a reference: tags move."""
        if manifest_digest:
            return [(node_id, manifest_digest) for node_id in sorted(self._by_digest.get(manifest_digest, ()))]
        return sorted(self._by_reference.get(reference, {}).items())
