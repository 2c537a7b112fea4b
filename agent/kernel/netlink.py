"""Netlink: framing, acknowledgements and dumps over one socket, for whoever speaks a netlink family.

Why our own: a message of 1 ms must not cost an import of 300 ms and 34 MB (pyroute2), and several messages in one
send are what makes a container's start cheap. `agent/network/netlink.py` has the vocabulary of links, addresses
and routes. Calls block for as long as the kernel holds its RTNL lock: call them from a worker thread.
See netlink(7); numbers are in linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

ROUTE = 0
NETFILTER = 12

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800

_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_CAPPED = 0x100
_EXTENDED = 0x200
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_BUFFER_BYTES = 1 << 16
# What is told of a failure takes about 1 KB of the socket's 200 KB receive buffer, and a full one loses messages.
_BATCH = 64


class Message(NamedTuple):
    """A request. Errors in `ignore` mean that what was asked for is so already."""

    type: int
    flags: int
    body: bytes
    ignore: tuple[int, ...] = ()


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> dict[int, bytes]:
    """What is in `data`, by kind; of several with one kind the last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Socket:
    """One netlink socket in the network namespace of the thread that opens it; not for use by two threads at once."""

    def __init__(self, family: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, *messages: Message) -> None:
        """Send all, in order, in as few system calls as fit, and wait until all are done.

        Raises the first OSError, with the kernel's own words; later messages of the same batch were tried too.
        """
        for start in range(0, len(messages), _BATCH):
            self._batch(messages[start : start + _BATCH])

    def _batch(self, messages: tuple[Message, ...]) -> None:
        """The kernel answers in order, and tells of a failure unasked: one acknowledgement, of the last, is enough."""
        first, last = self._sequence + 1, self._sequence + len(messages)
        frames = [self._frame(message, 0) for message in messages[:-1]]
        self._socket.send(b"".join((*frames, self._frame(messages[-1], ACK))))
        failure: OSError | None = None
        done = False
        while not done:
            for kind, flags, sequence, body in self._receive():
                if kind != _ERROR or not first <= sequence <= last:
                    continue
                done = sequence == last
                error = _error(body, flags)
                if error and error.errno not in messages[sequence - first].ignore:
                    failure = failure or error
        if failure:
            raise failure

    def ask(self, message: Message) -> bytes:
        """The body of the one answer to a question. Raises OSError."""
        self._socket.send(self._frame(message, 0))
        wanted = self._sequence
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != wanted:
                    continue
                if kind == _ERROR and (error := _error(body, flags)):
                    raise error
                return body

    def dump(self, message: Message) -> Iterator[tuple[int, bytes]]:
        """Every (type, body) that the kernel answers a dump request with."""
        self._socket.send(self._frame(message, DUMP))
        wanted = self._sequence
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != wanted:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    error = _error(body, flags)
                    if error:
                        raise error
                    return
                yield kind, body

    def _frame(self, message: Message, flags: int) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(message.body)
        header = _HEADER.pack(length, message.type, message.flags | flags | REQUEST, self._sequence, 0)
        return header + message.body + bytes(-length % 4)

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_BUFFER_BYTES)
        found = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            found.append((kind, flags, sequence, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return found


def _error(body: bytes, flags: int) -> OSError | None:
    """The failure in an acknowledgement (linux/netlink.h: nlmsgerr), with the extended text where there is one."""
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return None
    said = os.strerror(number)
    if flags & _EXTENDED:
        offset = 4 + _HEADER.size
        if not flags & _CAPPED:
            offset += struct.unpack_from("=I", body, 4)[0] - _HEADER.size
        extra = attributes(body[offset:]).get(1, b"").rstrip(b"\0").decode(errors="replace")
        said = f"{said}: {extra}" if extra else said
    return OSError(number, said)


GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)
