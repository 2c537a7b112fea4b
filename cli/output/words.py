"""Times and sizes in docker's words (its go-units library), and how texts are shortened. Pure."""

from __future__ import annotations

import time

_SECOND_NS = 10**9
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def span(nanoseconds: int) -> str:
    """ "About a minute", "3 hours": what `ps` says of an age."""
    seconds = max(nanoseconds, 0) // _SECOND_NS
    minutes, hours = seconds // 60, (max(nanoseconds, 0) + 1800 * _SECOND_NS) // (3600 * _SECOND_NS)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{seconds // 3600 // 24 // 365} years"


def ago(at_ns: int, now_ns: int) -> str:
    """ "3 hours ago"; "N/A" for a moment that is not known."""
    return f"{span(now_ns - at_ns)} ago" if at_ns else "N/A"


def decimal_size(count: int, digits: int = 3) -> str:
    """ "4.27MB": powers of 1000, as `images` shows."""
    return _scaled(count, 1000, _DECIMAL, digits)


def binary_size(count: int) -> str:
    """ "1.952GiB": powers of 1024, as `info` shows memory."""
    return _scaled(count, 1024, _BINARY, 4)


def rfc3339(at_ns: int) -> str:
    """ "2026-11-23T10:00:00.123456789Z", trailing zeros cut; Go's zero time for 0."""
    if not at_ns:
        return "0001-01-01T00:00:00Z"
    seconds, nanos = divmod(at_ns, _SECOND_NS)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def rfc3339_padded(at_ns: int) -> str:
    """As `logs -t` shows it: always nine digits."""
    seconds, nanos = divmod(at_ns, _SECOND_NS)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos:09d}Z"


def local_time(at_ns: int) -> str:
    """ "2026-11-23 10:00:00 +0000 UTC", in this host's zone: the CreatedAt of lists."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(at_ns // _SECOND_NS)) if at_ns else "N/A"


def go_duration(nanoseconds: int) -> str:
    """ "1m30s", "500ms": Go's notation."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < _SECOND_NS:
        for unit, name in ((10**6, "ms"), (10**3, "µs"), (1, "ns")):
            if nanoseconds >= unit:
                return f"{nanoseconds / unit:.6f}".rstrip("0").rstrip(".") + name
    minutes, rest = divmod(nanoseconds, 60 * _SECOND_NS)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / _SECOND_NS:.9f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds


def short(text: str, width: int) -> str:
    """At most `width` characters; what is cut is told by an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def quoted(text: str) -> str:
    """Go's %q: a double-quoted string with what cannot be seen escaped."""
    out = []
    for char in text:
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def cpus(nano_cpus: int) -> str:
    """ "1.5"."""
    return f"{nano_cpus / 10**9:.9f}".rstrip("0").rstrip(".")


_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}


def _scaled(count: int, base: int, units: tuple[str, ...], digits: int) -> str:
    value, at = float(count), 0
    while value >= base and at < len(units) - 1:
        value, at = value / base, at + 1
    return f"{value:.{digits}g}{units[at]}"
