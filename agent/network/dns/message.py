"""DNS messages on the wire (RFC 1035, EDNS0: RFC 6891): one question in, an answer out. Pure, standard library only.

Only what a resolver of local names needs: what is forwarded is passed on as it came.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

A, PTR, OPT, AAAA, ANY = 1, 12, 41, 28, 255
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME, REFUSED = 0, 2, 3, 5
HEADER = struct.Struct("!HHHHHH")
CLASSIC_BYTES = 512
# Fits any path without fragments (DNS flag day 2020).
UDP_BYTES = 1232
TCP_BYTES = 65535
# Short, because an address may move to another container; long enough that a busy client asks once per request.
TTL_S = 5
_ANSWER, _AUTHORITATIVE, _TRUNCATED, _RECURSION_WANTED, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_LONGEST_NAME = 255


class Query(NamedTuple):
    """`name` is in lower case without the last dot; `question` is as it came, to be echoed. `udp_bytes`: what the
    asker takes in one datagram; `extended`: it spoke EDNS0."""

    id: int
    flags: int
    name: str
    kind: int
    question: bytes
    udp_bytes: int
    extended: bool


def parse(data: bytes) -> Query:
    """Raises ValueError for anything but one plain question of class IN."""
    if len(data) < HEADER.size:
        raise ValueError("shorter than a header")
    number, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if flags & _ANSWER or flags & 0x7800 or questions != 1 or answers or authorities:
        raise ValueError("not a plain query")
    name, offset = _name(data, HEADER.size)
    if offset + 4 > len(data):
        raise ValueError("the question has no end")
    kind, group = struct.unpack_from("!HH", data, offset)
    if group != 1:
        raise ValueError("not of class IN")
    end = offset + 4
    limit, extended = CLASSIC_BYTES, False
    if additionals and data[end : end + 3] == b"\0\0\x29" and end + 11 <= len(data):
        extended = True
        limit = min(max(struct.unpack_from("!H", data, end + 3)[0], CLASSIC_BYTES), UDP_BYTES)
    return Query(number, flags, name, kind, data[HEADER.size : end], limit, extended)


def _name(data: bytes, offset: int) -> tuple[str, int]:
    """A question's name and where it ends; a question has no pointers."""
    labels: list[str] = []
    start = offset
    while True:
        if offset >= len(data) or offset - start > _LONGEST_NAME:
            raise ValueError("the name has no end")
        length = data[offset]
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        if length > 63 or offset + length > len(data):
            raise ValueError("a label is too long")
        labels.append(data[offset : offset + length].decode("latin-1").lower())
        offset += length


def respond(query: Query, code: int, records: Sequence[bytes] = (), *, limit: int = 0) -> bytes:
    """An answer of ours with as many `records` as fit into `limit` bytes (0: what the asker takes); when they do not
    all fit the answer says so, and the asker comes again over TCP."""
    tail = struct.pack("!BHHIH", 0, OPT, UDP_BYTES, 0, 0) if query.extended else b""
    room = (limit or query.udp_bytes) - HEADER.size - len(query.question) - len(tail)
    fitting: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            break
        fitting.append(record)
    flags = _ANSWER | _AUTHORITATIVE | _RECURSION | query.flags & _RECURSION_WANTED | code
    if len(fitting) < len(records):
        flags |= _TRUNCATED
    header = HEADER.pack(query.id, flags, 1, len(fitting), 0, 1 if tail else 0)
    return header + query.question + b"".join(fitting) + tail


def address_record(address: str) -> bytes:
    return _record(A, ipaddress.IPv4Address(address).packed)


def pointer_record(name: str) -> bytes:
    return _record(PTR, encode_name(name))


def _record(kind: int, data: bytes) -> bytes:
    """A record whose name points at the question's."""
    return struct.pack("!HHHIH", 0xC00C, kind, 1, TTL_S, len(data)) + data


def encode_name(name: str) -> bytes:
    """Raises ValueError for a label that DNS cannot hold."""
    out = b""
    for label in name.split("."):
        raw = label.encode("latin-1", "replace")
        if not 0 < len(raw) < 64:
            raise ValueError(f"{name!r} is no DNS name")
        out += bytes([len(raw)]) + raw
    return out + b"\0"


def reverse_address(name: str) -> str:
    """The IPv4 address that an in-addr.arpa name asks for, or ""."""
    head = name.removesuffix(".in-addr.arpa")
    parts = head.split(".")
    if head == name or len(parts) != 4 or not all(part.isdecimal() and int(part) < 256 for part in parts):
        return ""
    return ".".join(reversed(parts))


def with_id(data: bytes, number: int) -> bytes:
    """The same message with another id."""
    return struct.pack("!H", number) + data[2:]


def answers(data: bytes, asked: bytes) -> bool:
    """Whether `data` is an answer to the message `asked`: the same id and, but for case, the same question."""
    if len(data) < HEADER.size or data[:2] != asked[:2] or not data[2] & 0x80:
        return False
    try:
        _, end = _name(asked, HEADER.size)
    except ValueError:
        return False
    return data[HEADER.size : end + 4].lower() == asked[HEADER.size : end + 4].lower()
