"""A stream that is read ahead of who takes it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from agent.image.ahead import ahead


def test_pieces_come_in_their_order_and_then_what_went_wrong() -> None:
    def source() -> Iterator[bytes]:
        yield from (b"a", b"b", b"c")
        raise ValueError("damaged")

    with ahead(source()) as pieces:
        assert [next(pieces), next(pieces), next(pieces)] == [b"a", b"b", b"c"]
        with pytest.raises(ValueError, match="damaged"):
            next(pieces)


def test_it_is_no_further_ahead_than_it_may_be() -> None:
    asked = threading.Semaphore(0)
    count = 0

    def source() -> Iterator[bytes]:
        nonlocal count
        while True:
            count += 1
            asked.release()
            yield b"x"

    with ahead(source(), depth=3) as pieces:
        for taken in range(1, 5):
            next(pieces)
            for _ in range(3 if taken == 1 else 1):
                assert asked.acquire(timeout=60), "nobody reads ahead"
            assert count <= taken + 3


def test_nobody_reads_once_it_is_left() -> None:
    threads = threading.active_count()
    with pytest.raises(KeyError), ahead(itertools.repeat(b"x")) as pieces:
        next(pieces)
        raise KeyError
    assert threading.active_count() == threads


def test_nothing_is_an_end() -> None:
    with ahead(()) as pieces:
        assert list(pieces) == []
