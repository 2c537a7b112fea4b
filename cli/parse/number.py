"""Numbers as Go's flag package reads and refuses them: none is larger than the field of a message that takes it."""

from __future__ import annotations

from shoal.errors import InvalidArgument

INT32 = (1 << 31) - 1
INT64 = (1 << 63) - 1
_DIGITS = 40  # Python itself refuses to read numbers of thousands of digits


def integer(text: str) -> int:
    """A whole number of 64 bits, negative ones too."""
    return _signed(text, INT64)


def integer32(text: str) -> int:
    """A whole number of 32 bits, negative ones too: a timeout in seconds, a count."""
    return _signed(text, INT32)


def natural(text: str) -> int:
    """A whole number from 0 up, below 2^32."""
    if not text.isdecimal() or not text.isascii():
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > _DIGITS or int(text) >= 1 << 32:
        raise InvalidArgument(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def tail(text: str) -> int:
    """`--tail`: a number of lines, or "all" (-1, as every negative number)."""
    return -1 if text == "all" else integer(text)


def tail_or_all(text: str) -> int:
    """`--tail` of a container, where docker takes what is no number for "all"."""
    try:
        return tail(text)
    except InvalidArgument:
        return -1


def bounded(value: int, text: str) -> int:
    """`value`, read from `text`, when 64 bits hold it."""
    if not -INT64 - 1 <= value <= INT64:
        raise InvalidArgument(f'"{text}" is out of range')
    return value


def _signed(text: str, largest: int) -> int:
    if not text.removeprefix("-").removeprefix("+").isdecimal() or not text.isascii():
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if len(text) > _DIGITS or not -largest - 1 <= int(text) <= largest:
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)
