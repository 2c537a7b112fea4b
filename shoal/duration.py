"""Spans in Go's notation ("1m30s", "500ms"), in nanoseconds. Pure."""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument

_PART = re.compile(r"(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def duration(text: str) -> int:
    """Go's notation of a span that is not negative."""
    if text == "0":
        return 0
    total, at = 0, 0
    for part in _PART.finditer(text):
        if part.start() != at:
            break
        whole, _, fraction = part[1].partition(".")
        total += int(whole or "0") * _NS[part[2]] + int(fraction or "0") * _NS[part[2]] // 10 ** len(fraction)
        at = part.end()
    if not text or at != len(text):
        missing = re.fullmatch(r"[\d.]+", text[at:]) is not None
        raise InvalidArgument(f'time: {"missing unit in" if missing else "invalid"} duration "{text}"')
    if total >= 1 << 63:
        raise InvalidArgument(f'"{text}" is out of range')
    return total
