"""Spans ("1m30s") and moments ("10m" ago, RFC 3339, seconds since the epoch), in nanoseconds."""

from __future__ import annotations

import re

from cli.parse.number import bounded
from shoal.errors import InvalidArgument

_PART = re.compile(r"(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_EPOCH = re.compile(r"(\d{1,40})(?:\.(\d{1,9}))?", re.ASCII)
_FRACTION = re.compile(r"\.(\d{1,9})", re.ASCII)


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
    return bounded(total, text)


def moment(text: str, *, now_ns: int) -> int:
    """A point in time: a span back from `now_ns`, an ISO date or time (without zone: this host's), or seconds."""
    epoch = _EPOCH.fullmatch(text)
    if epoch:
        return bounded(int(epoch[1]) * 10**9 + int((epoch[2] or "").ljust(9, "0")), text)
    try:
        return now_ns - duration(text)
    except InvalidArgument:
        return _iso(text)


def _iso(text: str) -> int:
    import datetime  # only for this; a span is what people type

    fraction = _FRACTION.search(text)
    plain = text.replace(fraction[0], "") if fraction else text
    try:
        read = datetime.datetime.fromisoformat(plain)
    except ValueError as error:
        raise InvalidArgument(
            f'invalid value for time: "{text}"', hint="give a span (10m), a time (2026-11-23T10:00:00) or seconds"
        ) from error
    nanos = int(fraction[1].ljust(9, "0")) if fraction else 0
    return int(read.astimezone(datetime.UTC).timestamp()) * 10**9 + nanos
