"""Errands: which node brings an image from its registry, so that of many that need it one goes, and the others have it
from that one. In memory only: each manager sends the nodes whose sessions it holds, and asks the others (`holders`)
whether somebody is on the way already; two that send at once cost a second download, and nothing else.
"""

from __future__ import annotations

from shoal.clock import Clock

# Whoever is not heard of for so long does not bring it any more, or so slowly that another may try.
LAPSE_S = 30.0


class Errands:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Image (by digest, or else by name) → who is on the way, and until when that counts.
        self._sent: dict[str, tuple[str, float]] = {}

    def go(self, image: str, node_id: str) -> bool:
        """Send a node, or hear that it is on the way still; false while another one is."""
        now = self._clock.monotonic()
        self._sent = {key: sent for key, sent in self._sent.items() if sent[1] > now}
        if image in self._sent and self._sent[image][0] != node_id:
            return False
        self._sent[image] = (node_id, now + LAPSE_S)
        return True

    def end(self, image: str, node_id: str) -> None:
        """The node comes back with nothing."""
        if self._sent.get(image, ("", 0.0))[0] == node_id:
            del self._sent[image]

    def under_way(self, image: str) -> bool:
        """Whether somebody brings it."""
        return self._sent.get(image, ("", 0.0))[1] > self._clock.monotonic()


def image_of(reference: str, manifest_digest: str) -> str:
    """What is brought: a digest says more than a name."""
    return manifest_digest or reference
