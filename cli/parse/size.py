"""Sizes ("512m", "1.5g") in bytes, and CPUs ("1.5") in nano-CPUs."""

from __future__ import annotations

import re

from cli.parse.number import bounded
from shoal.errors import InvalidArgument

_SIZE = re.compile(r"(\d{1,40})(?:\.(\d{1,40}))? ?([kKmMgGtTpP]?)[iI]?[bB]?", re.ASCII)
_CPUS = re.compile(r"([+-]?)(\d{0,40})(?:\.(\d{0,40}))?", re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def size(text: str) -> int:
    """Bytes; the units are powers of 1024, as docker's are for limits."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    whole, fraction, unit = int(found[1]), found[2] or "0", _UNITS[found[3].lower()]
    return bounded(whole * unit + int(fraction) * unit // 10 ** len(fraction), text)


def cpus(text: str) -> int:
    """Nano-CPUs, exact to the ninth decimal; how many there may be is the daemon's to say."""
    found = _CPUS.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        raise InvalidArgument(f"failed to parse {text} as a rational number")
    fraction = found[3] or ""
    if len(fraction.rstrip("0")) > 9:
        raise InvalidArgument("value is too precise")
    nano_cpus = int(found[2] or "0") * 10**9 + int(fraction[:9].ljust(9, "0"))
    return bounded(-nano_cpus if found[1] == "-" else nano_cpus, text)
