"""The keeper's loop: whose event is whose."""

from __future__ import annotations

import os

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
