"""The form of a program in memory, where threads share the blocks of a program."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.kernel.program import Block, Op
from agent.kernel.table import compile_block

THREADS = 4


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
def test_threads_that_start_at_once_share_one_compiled_block() -> None:
    ready = threading.Barrier(THREADS)

    def compiled(block: Block) -> object:
        ready.wait()
        return compile_block(block)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(20):
            block = Block(Op("open it", "openat2", (0, f"/{number}".encode(), b"how", 24)) for number in range(50))
            forms = list(threads.map(compiled, [block] * THREADS))
            assert all(each is block.compiled for each in forms)
