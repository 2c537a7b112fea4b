"""Presence: that a manager serves. Its record stands under the manager's lease and goes with it, so what a view shows
of it is who can be reached now; it never leaves the managers, and no backup keeps it."""

from __future__ import annotations

from shoal.model.base import Meta, Value


class Presence(Value, frozen=True):
    """`meta.id` is the manager's node, `address` ("ADDR:PORT") where it serves."""

    meta: Meta = Meta()
    address: str = ""
