"""Chain: how the lines of the audit record hold together, and what is found when they do not. Pure.

Line N stands at `/audit/N` and holds the SHA-256 of line N-1 as it is stored. The head says which line is the last one
and what its SHA-256 is, and the same of the anchor: the last line that was trimmed away. The head is sealed with the
key that only managers have (AES-GCM), so that whoever can write to the store, but is no manager, can make none.

So whatever was altered, removed, put in or put elsewhere between anchor and head is found. What is not found: the whole
store put back to what it was at an earlier time, head and all; against that, keep a head elsewhere (`audit verify`
prints it, and takes one to compare). Whoever has the managers' key can write a record anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from shoal import codec
from shoal.errors import InvalidArgument
from shoal.model.audit import AuditEntry

# All of it, and the lines.
RECORD = "/audit"
PREFIX = "/audit/"
HEAD_KEY = "/audit-head"
HEAD_PURPOSE = "audit head"
# The verb of a line that was written when the head was gone, or was not of this cluster's making.
HEAD_LOST = "audit head lost"
_DIGITS = 16


class Point(msgspec.Struct, frozen=True):
    """A line, by its number and by the SHA-256 of its stored form. Number 0 is before the first."""

    number: int = 0
    digest: bytes = b""

    @property
    def text(self) -> str:
        """ "123:0a1b…" """
        return f"{self.number}:{self.digest.hex()}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """Raises InvalidArgument for what is no `text` of a point."""
        number, _, digest = text.partition(":")
        try:
            point = cls(int(number), bytes.fromhex(digest))
        except ValueError:
            point = cls(-1)
        if point.number < 0 or bool(point.number) != bool(point.digest):
            raise InvalidArgument(f"invalid head {text!r}", hint="give NUMBER:HASH, as 'audit verify' prints it")
        return point


class Head(msgspec.Struct, frozen=True):
    """The last line, and the anchor: the last of those that were trimmed away."""

    last: Point = Point()
    anchor: Point = Point()


def key_of(number: int) -> str:
    return f"{PREFIX}{number:0{_DIGITS}d}"


def digest(stored: bytes) -> bytes:
    return hashlib.sha256(stored).digest()


class Faults:
    """What is wrong with the lines between a head's anchor and its last, a sentence for each.

    They are shown one by one, in the order of their keys. `known` is a point of before that must be on the chain still.
    """

    def __init__(self, head: Head, known: Point | None = None) -> None:
        self.head = head
        self._known = known
        self._last = head.anchor

    def of(self, key: str, stored: bytes) -> Iterator[str]:
        """What is wrong with one more line."""
        number, before = number_of(key), self._last
        if number <= self.head.anchor.number:
            yield f"line {number} stands before the first one, {self.head.anchor.number + 1}"
            return
        if number > self.head.last.number:
            yield f"line {number} stands after the last one that was written, {self.head.last.number}"
            return
        if number != before.number + 1:
            yield missing(before.number + 1, number - 1)
        yield from _wrong(number, stored, before.digest if number == before.number + 1 else b"")
        self._last = Point(number, digest(stored))
        if self._known is not None and self._known.number == number and self._known != self._last:
            yield f"line {number} is not what it was when its hash was noted"

    def end(self) -> Iterator[str]:
        """What is wrong with the end, once all lines were shown."""
        last, head = self._last, self.head.last
        if last.number != head.number:
            yield missing(last.number + 1, head.number)
        elif last.digest != head.digest:
            yield f"line {last.number}, the last one, is not as it was written"
        if self._known is not None and self._known.number > head.number:
            yield f"line {self._known.number} was there once, and the record ends with line {head.number}"


def missing(first: int, last: int) -> str:
    return f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"


def _wrong(number: int, stored: bytes, previous: bytes) -> Iterator[str]:
    """What is wrong with one line. `previous` is empty where the one before is missing."""
    try:
        entry = codec.unpack(AuditEntry, stored)
    except InvalidArgument as error:
        yield f"line {number} cannot be read: {error.message}"
        return
    if entry.verb == HEAD_LOST:
        yield f"the head was lost before line {number}: lines may have been cut off there"
    if entry.number != number:
        yield f"line {number} was line {entry.number}: the order was changed"
    elif previous and entry.previous != previous:
        yield f"line {number} does not follow from line {number - 1} as it is now: that one was altered, or this one"


def number_of(key: str) -> int:
    """0 for a key that is no line's."""
    tail = key.removeprefix(PREFIX)
    return int(tail) if tail.isdecimal() else 0
