"""Volume: data on one host that outlives containers."""

from __future__ import annotations

from shoal.model.base import Meta, Value


class Volume(Value, frozen=True):
    """`anonymous` ones have a 64-digit name and go with their container (`rm -v`)."""

    meta: Meta = Meta()
    name: str = ""
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    mountpoint: str = ""
    anonymous: bool = False
