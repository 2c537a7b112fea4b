"""Reading ahead: a thread makes the pieces of a stream while another uses those that were made before.

zlib and hashlib let go of the interpreter, so that two threads keep two processors busy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

DEPTH = 2  # each may be a mebibyte


@contextmanager
def ahead(source: Iterable[bytes], depth: int = DEPTH) -> Iterator[Iterator[bytes]]:
    """The pieces of `source` in their order, up to `depth` of them made before they are asked for; what it raises comes
    after those before it. Once the `with` is left, nobody reads `source` any more."""
    made: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(depth)
    left = threading.Event()

    def make() -> None:
        pieces = iter(source)
        piece: bytes | BaseException | None = b""
        while isinstance(piece, bytes):
            room.acquire()
            if left.is_set():
                return
            try:
                piece = next(pieces, None)
            except BaseException as error:  # carried over to who takes
                piece = error
            made.put(piece)

    def taken() -> Iterator[bytes]:
        while (piece := made.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            room.release()
            yield piece

    thread = threading.Thread(target=make, name="reading ahead")
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        room.release()
        thread.join()
