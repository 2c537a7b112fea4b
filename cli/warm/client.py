"""Client: what a `shoal` does first. It finds the warm process and lends it this command; or returns, and all is as
if there were none.

Only modules in C are imported here, and as few as can be: this file is the whole start of a warm command. What it
promises to who called it: signals reach the command, stopping and continuing too; the exit code is the command's; a
command whose client is killed ends.
"""

import _signal  # type: ignore[import-not-found]  # typeshed knows only what is made of it
import _socket
import os
import sys

TYPE_CHECKING = False  # `typing` would be half of the start
if TYPE_CHECKING:
    from typing import NoReturn

# What comes first on a connection, 4 bytes each: how many arguments and variables, the umask, the signals of PROXIED
# that whoever started this command ignores, as a mask of their numbers, and the bytes of all arguments and variables.
HEADER = "!IIIII"
DESCRIPTORS = (0, 1, 2)
GO = b"+"
# A start makes a hundred thousand objects and hardly any garbage; who stays for long makes some.
COLLECT_AFTER = 200_000
PROXIED = (
    _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2,
    _signal.SIGWINCH,
)  # fmt: skip


def wanted() -> bool:
    """Whether this user's commands may be lent, and may leave a process behind."""
    return os.environ.get("SHOAL_WARM") != "0"


def hand_over() -> None:
    """Run this process's command in the warm process and exit with its code; return where that cannot be."""
    # Commands on machines ask for passwords at the terminal, or read them from descriptors that are not lent.
    if not wanted() or "machine" in sys.argv:
        return
    # A signal that comes before it is known whose it is waits until then.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, PROXIED)
    connection, pid = None, 0
    try:
        for number in DESCRIPTORS:
            os.fstat(number)  # a closed one cannot be lent, and would become the connection
        if connection := _connect(place()):
            ask(connection)
            pid = _answer(connection)
    except OSError:
        pid = 0
    if connection and pid:
        _follow(connection, pid, mask)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def place() -> str:
    """Where the warm process of this user, login and installation listens. What is in the name, both have alike."""
    user = os.getuid()
    folder = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if user == 0 else "/tmp")
    with open("/proc/self/cgroup", "rb") as file:  # noqa: PTH123  # pathlib would be half of the start
        group = int.from_bytes(file.read(), "big")
    spaces = [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("mnt", "net", "pid", "user")]  # noqa: PTH116
    code = os.stat(__file__)  # noqa: PTH116
    alike = hash((group, *spaces, code.st_dev, code.st_ino, code.st_mtime_ns, os.stat(sys.executable).st_ino))  # noqa: PTH116
    return f"{folder}/shoal-warm-{user}/{alike & (1 << 64) - 1:016x}"


def is_private(folder: str) -> bool:
    """Whether nobody else can have put something there, or can look into it."""
    about = os.lstat(folder)
    return about.st_uid == os.getuid() and about.st_mode & 0o170077 == 0o040000


def _connect(path: str) -> "_socket.socket | None":
    """None where the process at the other end is not this user's."""
    if not is_private(os.path.dirname(path)):  # noqa: PTH120
        return None
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(path)
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred
    return connection if int.from_bytes(credentials[4:8], sys.byteorder) == os.getuid() else None


def ask(connection: "_socket.socket") -> None:
    """Send all that a command is. Raises OSError for what cannot be lent, as a folder that is gone."""
    variables = [key + b"=" + value for key, value in os.environb.items()]
    words = [os.fsencode(word) for word in sys.argv]
    body = b"\0".join([*words, *variables])
    mask = os.umask(0)
    os.umask(mask)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    ignored = sum(1 << number for number in PROXIED if _signal.getsignal(number) is _signal.SIG_IGN)
    lent = b"".join(each.to_bytes(4, sys.byteorder) for each in (*DESCRIPTORS, here))
    header = b"".join(each.to_bytes(4, "big") for each in (len(words), len(variables), mask, ignored, len(body)))
    connection.sendmsg([header], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, lent)])
    connection.sendall(body)
    os.close(here)


def _answer(connection: "_socket.socket") -> int:
    """The pid of who runs the command; 0 when the warm process would not have it."""
    answer = connection.recv(5)
    return int.from_bytes(answer[1:], "big") if len(answer) == 5 and answer[:1] == GO else 0


def _follow(connection: "_socket.socket", pid: int, mask: "set[int]") -> "NoReturn":
    """Pass signals on, those of `mask` not, until the command ends, then end as it did. What was ignored when this
    process began is passed on, too: the command ignores it, or has a use for it, as `run` has."""
    last = 0

    def pass_on(number: int, _frame: object) -> None:
        nonlocal last
        last = number
        _kill(pid, number)

    def stop(_number: int, _frame: object) -> None:
        _kill(pid, _signal.SIGSTOP)
        _kill(os.getpid(), _signal.SIGSTOP)
        _kill(pid, _signal.SIGCONT)  # here it goes on: somebody sent SIGCONT

    for number in PROXIED:
        _signal.signal(number, pass_on)
    _signal.signal(_signal.SIGTSTP, stop)
    _signal.signal(_signal.SIGCONT, lambda *_: _kill(pid, _signal.SIGCONT))
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    code = connection.recv(4)
    if len(code) == 4:
        os._exit(int.from_bytes(code, "big", signed=True))
    # It died without a word: of the signal that was passed on, or killed by somebody.
    if last:
        _signal.signal(last, _signal.SIG_DFL)
        _kill(os.getpid(), last)
    os._exit(128 + _signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # contextlib would be a third of the start
        return
