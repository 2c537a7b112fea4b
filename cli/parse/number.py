"""Numbers as Go's flag package reads and refuses them."""

from __future__ import annotations

from shoal.errors import InvalidArgument


def integer(text: str) -> int:
    """A whole number, negative ones too."""
    if not text.removeprefix("-").removeprefix("+").isdecimal() or not text.isascii():
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0 up, below 2^32."""
    if not text.isdecimal() or not text.isascii():
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) >= 1 << 32:
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def tail(text: str) -> int:
    """`--tail`: a number of lines, or "all" (-1, as every negative number)."""
    return -1 if text == "all" else integer(text)
