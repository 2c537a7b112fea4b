"""Moments ("10m" ago, RFC 3339, seconds since the epoch), in nanoseconds; spans are `shoal.duration`'s."""

from __future__ import annotations

import re

from cli.parse.number import bounded
from shoal.duration import duration
from shoal.errors import InvalidArgument

_EPOCH = re.compile(r"(\d{1,40})(?:\.(\d{1,9}))?", re.ASCII)
_FRACTION = re.compile(r"\.(\d{1,9})", re.ASCII)


def moment(text: str, *, now_ns: int) -> int:
    """A point in time: a span back from `now_ns`, an ISO date or time (without zone: this host's), or seconds."""
    epoch = _EPOCH.fullmatch(text)
    if epoch:
        return bounded(int(epoch[1]) * 10**9 + int((epoch[2] or "").ljust(9, "0")), text)
    try:
        return now_ns - duration(text)
    except InvalidArgument:
        return _iso(text)


def bound(text: str, *, now_ns: int) -> int:
    """A point in time as with `moment`, or 0 where none is named."""
    return moment(text, now_ns=now_ns) if text else 0


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
