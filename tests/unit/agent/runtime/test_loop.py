"""The keeper's loop: whose event is whose, and who works."""

from __future__ import annotations

import os
import threading
import time

from agent.runtime.loop import IN, Loop


def test_an_event_of_a_descriptor_is_not_that_of_the_next_with_its_number() -> None:
    """Two are ready at once; the first to be called closes the other, whose number somebody else has at once."""
    loop = Loop(workers=0)
    ready, silent = [os.pipe(), os.pipe()], os.pipe()
    called: list[str] = []

    def first(fd: int) -> None:
        called.append("first")
        [other] = {each for each, _ in ready} - {fd}
        for each in (fd, other):
            loop.forget(each)
        os.dup2(silent[0], other)
        loop.watch(other, IN, lambda _events: following())
        loop.call(write)  # in the next round

    def write() -> None:
        called.append("written")
        os.write(silent[1], b"x")

    def following() -> None:
        called.append("following")
        loop.stop()

    for reader, writer in ready:
        os.write(writer, b"x")
        loop.watch(reader, IN, lambda _events, fd=reader: first(fd))
    loop.run()
    assert called == ["first", "written", "following"]
    for fd in (*ready[0], *ready[1], *silent):
        os.close(fd)


def test_jobs_that_find_all_workers_busy_are_done_in_their_order() -> None:
    loop = Loop(workers=1)
    begun: list[int] = []
    ended: list[tuple[int, str]] = []

    def done(result: int, error: BaseException | None) -> None:
        ended.append((result, str(error)))
        if len(ended) == 3:
            loop.stop()

    for number in range(3):
        loop.submit(lambda number=number: begun.append(number) or 1 // (number - 1), done)
    loop.run()
    assert begun == [0, 1, 2]
    assert ended == [(-1, "None"), (None, "integer division or modulo by zero"), (1, "None")]


def test_the_last_one_that_worked_works_again() -> None:
    loop = Loop(workers=3)
    workers = []
    for _ in range(5):
        deadline = time.monotonic() + 30
        while len(loop._idle) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        loop.submit(threading.get_ident, lambda result, _error: workers.append(result) or loop.stop())
        loop._running = True
        loop.run()
    assert len(set(workers)) == 1
