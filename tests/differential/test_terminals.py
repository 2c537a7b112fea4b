"""Terminals: what somebody at a keyboard sees of `docker` and of `shoal`, key by key."""

from __future__ import annotations

import pytest

from tests.differential.conftest import Pair, check_same

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

# `typed WAIT KEYS … LINE` runs a line at a terminal of its own: KEYS are typed once WAIT has been seen since the last
# ones (RAW: once the client has the keyboard to itself); "@ROWSxCOLUMNS" changes the window. What the terminal showed
# comes out at the end.
TYPIST = r"""
export -f engine
typed() { python3 - "$@" <<'PY'
import fcntl, os, pty, signal, struct, sys, termios, time
*steps, line = sys.argv[1:]
child, terminal = pty.fork()
if not child:
    for each in (signal.SIGINT, signal.SIGQUIT):  # which a login heeds, and who is started in the background ignores
        signal.signal(each, signal.SIG_DFL)
    os.execvp("bash", ["bash", "-c", line])
said, seen = b"", 0
def more():
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""
for awaited, keys in zip(steps[::2], steps[1::2]):
    while awaited == "RAW" and termios.tcgetattr(terminal)[3] & termios.ICANON:
        time.sleep(0.02)
    while awaited != "RAW" and awaited.encode() not in said[seen:]:
        data = more()
        if not data:
            break
        said += data
    seen = len(said)
    if keys.startswith("@"):
        rows, columns = map(int, keys[1:].split("x"))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    else:
        os.write(terminal, keys.encode().decode("unicode_escape").encode())
while data := more():
    said += data
os.waitpid(child, 0)
print(said.decode().replace("\r", ""))
PY
}
"""
CASES = {
    "run": r"""
        typed "engine run --rm -it busybox sh -c 'tty; echo \$TERM; exit 3'"
        typed "stty rows 33 cols 77; engine run --rm -it busybox \
            sh -c 'until stty size 2>/dev/null | grep \"33 77\"; do :; done'"
        typed ready 'word\n' "engine run --rm -it busybox sh -c 'echo ready; read x; echo got \$x; exit 5'"
        typed ready @44x99 '44 99' '\x03' "engine run --rm -it busybox \
            sh -c 'trap \"stty size\" WINCH; echo ready; while :; do sleep 0.1; done'"
        typed ready '\x03' "engine run --rm busybox \
            sh -c 'trap \"exit 9\" INT; echo ready; while :; do sleep 0.1; done'"
        typed ready '\x03' "trap '' INT; engine run --rm busybox \
            sh -c 'trap \"exit 9\" INT; echo ready; while :; do sleep 0.1; done'"
        typed ready '\x10\x11' "engine run -it --name web busybox sh -c 'echo ready; sleep 100'"
        engine stop -t 0 web
        typed ready '\x10\x11' "engine start -ai web"
    """,
    "attach": r"""
        engine run -d -it --name web busybox sh -c 'while read x; do echo got $x; done; exit 4'
        typed RAW 'one\n' 'got one' '\x10\x11' "engine attach web"
        typed RAW 'two\n' 'got two' 'xy' "engine attach --detach-keys x,y web"
        engine ps --format '{{.Names}} {{.State}}'
        typed RAW 'three\n' 'got three' '\x04' "engine attach web"
        engine inspect -f '{{.State.ExitCode}}' web
        engine logs web | tr -d '\r'
        typed RAW 'four\n' 'got four' '\x04' "engine start -ai web"
    """,
    "exec": r"""
        engine run -d --name web busybox sleep 100
        typed "engine exec -it web sh -c 'tty; echo err >&2; exit 6'"
        typed ready '\x03' "engine exec -it web sh -c 'trap \"exit 8\" INT; echo ready; while :; do sleep 0.1; done'"
        typed ready '\x10\x11' "engine exec -it web sh -c 'echo ready; sleep 99'"
        typed ready @44x99 "engine exec -it web \
            sh -c 'trap \"stty size; exit\" WINCH; echo ready; while :; do sleep 0.1; done'"
        engine exec web sh -c 'ps | grep -c "[s]leep 99"'
    """,
}


@pytest.mark.parametrize("verb", CASES)
def test_both_show_the_same(pair: Pair, verb: str) -> None:
    check_same(*pair.type(TYPIST + CASES[verb]))
