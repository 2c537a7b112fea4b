"""Size: how much memory or disk an option of a driver asks for."""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument

MIB = 1 << 20
_SIZE = re.compile(r"([1-9]\d{0,8})([mgt])", re.ASCII | re.IGNORECASE)
_UNITS = {"m": MIB, "g": MIB << 10, "t": MIB << 20}


def parse(key: str, text: str) -> int:
    """In bytes. Raises InvalidArgument."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f'option {key}: "{text}" is no size', hint="write it as 512m or 10g")
    return int(found[1]) * _UNITS[found[2].lower()]
