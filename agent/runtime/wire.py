"""What agent and keeper say to each other over the keeper's unix socket: frames of a kind and a payload.

A connection begins with one JSON request. `{"op": "control"}` makes it a control connection: numbered requests and
answers, many at once. `attach` and `exec` make it a stream: one JSON answer, then output one way, input the other, and
the exit as the last JSON; then the connection is at its beginning again. Every answer is {"seq", "result"} or
{"seq", "error": {"kind", "message", "hint"}}.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JSON, STDOUT, STDERR, STDIN, STDIN_END = range(5)
MAX_PAYLOAD = 16 * 1024 * 1024
_HEADER = struct.Struct("<IB")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode  # without a look for blanks and other encodings


def frame(kind: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload), kind) + payload


def message(value: dict[str, Any]) -> bytes:
    return frame(JSON, _encode(value).encode())


def value(payload: bytes) -> dict[str, Any]:
    """What a `message` says. Raises ValueError."""
    found: dict[str, Any] = _decode(payload.decode())[0]
    return found


class Decoder:
    """Cuts a byte stream into frames. Raises ValueError for one that is too large."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _HEADER.size:
                length, kind = _HEADER.unpack_from(buffer, at)
                if length > MAX_PAYLOAD:
                    raise ValueError(f"a frame of {length} bytes is too large")
                if len(buffer) - at - _HEADER.size < length:
                    return
                payload = bytes(buffer[at + _HEADER.size : at + _HEADER.size + length])
                at += _HEADER.size + length
                yield kind, payload
        finally:
            del buffer[:at]


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """A name for a socket's path that fits into struct sockaddr_un (107 bytes), however long the path is."""
    if len(os.fsencode(path)) <= 107:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket that only its owner may connect to, in place of whatever was there."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    mask = os.umask(0o177)
    try:
        with address(path) as name:
            listener.bind(name)
    finally:
        os.umask(mask)
    listener.listen(128)
    return listener
