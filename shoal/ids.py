"""Ids: who mints them and how they are shortened.

What is one host's, containers and its own networks, has 64 hex digits as docker's; what is the cluster's, 25 base-36
digits as swarm's, so that nobody mistakes one for the other. A unique prefix stands for an id wherever one is asked
for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from shoal.errors import Conflict, NotFound

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGITS = 25
_DIGIT_OF = bytes(ord(_ALPHABET[byte % 36]) for byte in range(256))
_LEFT_OUT = bytes(range(252, 256))
SHORT = 12


def new_id() -> str:
    """25 base-36 digits, 129 bits of chance."""
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """`count` fresh ids from one read of the kernel's random source, or few."""
    digits = b""
    while len(digits) < _DIGITS * count:
        # Of 256 values of a byte, 252 are seven times each digit; the others are left out, so that all are as likely.
        digits += os.urandom(26 * count).translate(_DIGIT_OF, _LEFT_OUT)
    text = digits.decode()
    return [text[first : first + _DIGITS] for first in range(0, _DIGITS * count, _DIGITS)]


def new_local_id() -> str:
    """64 hex digits."""
    return os.urandom(32).hex()


def base36(number: int, digits: int) -> str:
    """`number` in base 36, padded with zeros to `digits`."""
    return _base36(number, digits)


def short(full: str) -> str:
    """The 12 digits that people see; an image's "sha256:" falls away."""
    return full.removeprefix("sha256:")[:SHORT]


def resolve(wanted: str, known: Iterable[str], *, kind: str) -> str:
    """The one id in `known` that is `wanted` or begins with it.

    Raises NotFound ("No such container: x") for none and Conflict for several.
    """
    found = [full for full in known if full.startswith(wanted)] if wanted else []
    if wanted in found:
        return wanted
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"No such {kind}: {wanted}")
    raise Conflict(f"{kind} prefix {wanted} is ambiguous: {len(found)} ids begin with it", hint="give more digits")


def _base36(number: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        number, rest = divmod(number, 36)
        out.append(_ALPHABET[rest])
    return "".join(reversed(out))
