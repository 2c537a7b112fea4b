import os
import pty
import termios

from cli import terminal


def test_what_was_typed_before_is_not_lost():
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"typed ahead\n")
        with terminal.raw(theirs):
            assert not termios.tcgetattr(theirs)[3] & termios.ICANON
            assert os.read(theirs, 100) == b"typed ahead\n"
        assert termios.tcgetattr(theirs)[3] & termios.ICANON
    finally:
        os.close(ours)
        os.close(theirs)
