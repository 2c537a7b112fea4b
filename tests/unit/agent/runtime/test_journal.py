import socket

import pytest

from agent.runtime.journal import Journal


@pytest.fixture
def listener(tmp_path):
    """A socket as the journal's."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path)
        made.settimeout(5)
        yield made, path


def test_lines_are_entries_with_a_priority_and_the_fields(listener):
    listener, path = listener
    log = Journal({"CONTAINER_NAME": "web", "NOTE": "two\nlines"}, path=path)
    log.write(1, b"one\nha", 0)
    log.write(2, b"error\n", 0)
    log.flush(0)
    log.close()
    own = b"CONTAINER_NAME=web\nNOTE\n\x09\0\0\0\0\0\0\0two\nlines\n"
    assert [listener.recv(1 << 16) for _ in range(3)] == [
        own + b"PRIORITY=6\nMESSAGE=one\n",
        own + b"PRIORITY=3\nMESSAGE=error\n",
        own + b"PRIORITY=6\nMESSAGE=ha\nCONTAINER_PARTIAL_MESSAGE=true\n",
    ]


def test_a_journal_that_takes_nothing_stops_nobody_and_is_told_what_was_lost(listener):
    listener, path = listener
    log = Journal({}, path=path)
    line = b"x" * 9000 + b"\n"
    for _ in range(1000):
        log.write(1, line, 0)
    listener.setblocking(False)
    received = []
    while not received or b"are lost" not in received[-1]:
        try:
            received.append(listener.recv(1 << 16))
        except BlockingIOError:
            log.flush(0)
    lost = int(received[-1].split(b"MESSAGE=")[1].split()[0])
    assert lost > 0
    assert len(received) - 1 + lost == 1000
    log.close()
