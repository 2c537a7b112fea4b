"""Server: the process that waits with everything imported, and forks for each command that `client` brings.

It takes commands only from a process that is like itself in everything that a command could tell: a fork of this one
must not have more rights, other limits or another locale than the command would have had. The fork stands ready before
its command comes, and is the command from then on; this process neither waits for it nor keeps anything of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib
import io
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple, NoReturn

from cli.warm import client

IDLE_S = 600.0
_READ_S = 5.0
_MAX_BYTES = 8 << 20
# Variables that the interpreter and the C library read when they start.
_AT_START = (b"PYTHON", b"LD_", b"LC_", b"LANG", b"MALLOC_", b"GRPC_", b"SSL_", b"OPENSSL_")
_IN_STATUS = ("Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Cpus_allowed:")
_F_SETSIG = 10  # fcntl(2); the module has no name for it
_ANY_CHANGE = fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME
# Beside the commands themselves: what is imported when it is needed.
_MODULES = (
    "cli.app",
    "cli.build.shell",
    "cli.calls",
    "cli.channel",
    "cli.help",
    "cli.lane",
    "concurrent.futures.thread",
)


class Command(NamedTuple):
    """A command as it was lent. `ignored` are signals, as a mask of their numbers; `descriptors` are stdin, stdout,
    stderr and the working folder."""

    argv: list[str]
    environment: dict[bytes, bytes]
    umask: int
    ignored: int
    descriptors: list[int]


class Waiting(NamedTuple):
    """What a fork has from the process that waits: the socket where commands come, what that process is like, of which
    code it is made, and what runs a command line to its exit code."""

    listening: socket.socket
    own: tuple[object, ...]
    code: dict[str, int]
    run: Callable[[list[str]], int]


def main() -> NoReturn:
    """Serve at the path in argv until nobody has asked for ten minutes, or the code on disk is another."""
    path = Path(sys.argv[1])
    with _alone(path) as lock, socket.socket(socket.AF_UNIX) as listening:
        run = _import_everything()
        waiting = Waiting(listening, circumstances(os.getpid(), os.environb), _code(), run)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps (sigaction(2), SA_NOCLDWAIT)
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        listening.listen(128)
        gc.collect()
        gc.freeze()
        gc.set_threshold(client.COLLECT_AFTER)
        try:
            while _one_command(waiting, lock):
                pass
        finally:
            path.unlink(missing_ok=True)
    os._exit(0)


def _one_command(waiting: Waiting, lock: BinaryIO) -> bool:
    """Have a fork ready before the command comes, which then need not wait for it; returns once the fork has one,
    whether there is to be another. A fork that is not asked in time ends by itself: it sees that `ours` is closed."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        lock.close()
        _wait_and_serve(waiting, theirs)
    theirs.close()
    with ours:
        ours.settimeout(IDLE_S)
        with contextlib.suppress(TimeoutError):
            return ours.recv(1) == client.GO
    return False


def _wait_and_serve(waiting: Waiting, parent: socket.socket) -> NoReturn:
    """In the fork: wait for a command, and be it."""
    try:
        _rehearse(waiting)
        watched = _ending_with_a_change(waiting.code)
        if _code() != waiting.code:
            os._exit(0)
        ready, _, _ = select.select([waiting.listening, parent], [], [])
        if waiting.listening in ready:
            connection, _ = waiting.listening.accept()
            for each in watched:
                os.close(each)
            if not watched and _code() != waiting.code:
                os._exit(0)
            parent.send(client.GO)
            parent.close()
            waiting.listening.close()
            _serve(connection, waiting.own, waiting.run)
    except OSError:
        pass  # the parent is gone, and nobody is told
    finally:
        os._exit(0)


def _rehearse(waiting: Waiting) -> None:
    """A page is copied when it is first written to (fork(2)). Those that any command writes to are copied before
    anybody waits, by a command that leads nowhere, and by what this process lends itself: from a thread, since it may
    be more than a socket holds."""
    waiting.run(["--host", "unix:///", "exec", "nobody", "nothing"])
    lender, taker = socket.socketpair()

    def lend() -> None:
        with lender:
            client.ask(lender)

    with taker:
        lending = threading.Thread(target=lend)
        lending.start()
        command = _read(taker)
        lending.join()
    _become(command)
    asyncio.run(asyncio.to_thread(int))
    circumstances(os.getpid(), os.environb)


def _ending_with_a_change(code: Mapping[str, int]) -> list[int]:
    """Let the kernel kill this process as soon as a file beside these is another (fcntl(2), F_NOTIFY): to look at all
    of them when a command has come would be a tenth of it. Closing what is returned calls it off; nothing is returned
    where the kernel does not do it (proc(5), dir-notify-enable)."""
    watched: list[int] = []
    try:
        for folder in {os.path.dirname(file) for file in code}:  # noqa: PTH120
            watched.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.fcntl(watched[-1], _F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(watched[-1], fcntl.F_NOTIFY, _ANY_CHANGE)
    except OSError:
        for each in watched:
            os.close(each)
        return []
    return watched


def circumstances(pid: int, environment: Mapping[bytes, bytes]) -> tuple[object, ...]:
    """What two processes must have alike for one to run the other's command. Raises OSError for a pid that is gone."""
    status = [line for line in _read_of(pid, "status").splitlines() if line.startswith(_IN_STATUS)]
    starting = {key: value for key, value in environment.items() if key.startswith(_AT_START)}
    root = os.readlink(f"/proc/{pid}/root")  # noqa: PTH115
    return status, starting, _read_of(pid, "limits"), os.getpriority(os.PRIO_PROCESS, pid), root


def _read_of(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}") as file:  # noqa: PTH123  # pathlib would be a third of this
        return file.read()


def _serve(connection: socket.socket, own: tuple[object, ...], run: Callable[[list[str]], int]) -> NoReturn:
    """In the fork: be the command, or leave it to the client."""
    code = 1
    try:
        connection.settimeout(_READ_S)
        command = _read(connection)
        pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if circumstances(pid, command.environment) != own:
            os._exit(code)
        connection.settimeout(None)
        _die_with(connection)
        _heed_but(command.ignored)
        connection.sendall(client.GO + struct.pack("!i", os.getpid()))
        _become(command)
        code = run(command.argv[1:])
        fcntl.fcntl(connection, fcntl.F_SETFL, 0)  # the client's end is no reason to die any more
        connection.sendall(struct.pack("!i", code))
    except (OSError, ValueError):
        pass  # no command, or nobody left to be told how it ended
    finally:
        os._exit(code)  # whatever happens, this process must not go on as another server


def _read(connection: socket.socket) -> Command:
    """Raises ValueError for what no client of ours sends."""
    size = struct.calcsize(client.HEADER)
    head, descriptors, _, _ = socket.recv_fds(connection, size, len(client.DESCRIPTORS) + 1)
    if len(head) != size or len(descriptors) != len(client.DESCRIPTORS) + 1:
        raise ValueError("no command")
    arguments, variables, umask, ignored, length = struct.unpack(client.HEADER, head)
    if length > _MAX_BYTES:
        raise ValueError("a command that is too long")
    body = bytearray()
    while len(body) < length:
        body += connection.recv(length - len(body)) or _broken_off()
    words = bytes(body).split(b"\0")
    if len(words) != arguments + variables or not arguments:
        raise ValueError("no command")
    argv = [os.fsdecode(word) for word in words[:arguments]]
    pairs = (word.partition(b"=") for word in words[arguments:])
    return Command(argv, {key: value for key, _, value in pairs}, umask, ignored, descriptors)


def _broken_off() -> NoReturn:
    raise ValueError("a command that breaks off")


def _heed_but(ignored: int) -> None:
    """Signals as the interpreter finds them when it starts, whoever started the process that this is a fork of."""
    for number in client.PROXIED:
        heeded = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if ignored >> number & 1 else heeded)


def _become(command: Command) -> None:
    """Take the command's place: its descriptors, folder, environment, and Python's streams made for them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, here = command.descriptors
    os.fchdir(here)
    for number, descriptor in zip(client.DESCRIPTORS, streams, strict=True):
        os.dup2(descriptor, number)
    for descriptor in command.descriptors:
        os.close(descriptor)
    os.umask(command.umask)
    for name in set(os.environb) - set(command.environment):
        del os.environb[name]
    for name, value in command.environment.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    sys.argv[:] = command.argv
    sys.stdin = _stream(0, "rb", sys.stdin)
    sys.stdout = _stream(1, "wb", sys.stdout)
    sys.stderr = _stream(2, "wb", sys.stderr)


def _stream(number: int, mode: str, like: io.TextIOWrapper | object) -> io.TextIOWrapper:
    """As the interpreter makes them when it starts: lines for a terminal, and always for stderr."""
    assert isinstance(like, io.TextIOWrapper)
    raw = open(number, mode, closefd=False)  # noqa: SIM115  # it lives as long as the process
    lines = number == 2 or os.isatty(number)
    return io.TextIOWrapper(raw, encoding=like.encoding, errors=like.errors, line_buffering=lines)


def _die_with(connection: socket.socket) -> None:
    """Let the kernel kill this process when the client is gone, as if they were one (fcntl(2), F_SETSIG). The client
    says nothing after its command, so its end is the only event there is."""
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """Of several that were started at once, one stays."""
    name = path.with_suffix(".lock")
    with name.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(lock.fileno()), name.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            os._exit(0)
        try:
            yield lock
        finally:
            name.unlink(missing_ok=True)


def _import_everything() -> Callable[[list[str]], int]:
    """Whatever any command imports, so that no fork has to. Returns what runs a command line to its exit code."""
    for name in _MODULES:
        importlib.import_module(name)
    group: ModuleType = importlib.import_module("cli.group")
    for path in group.COMMANDS:
        group.load(path)
    app: ModuleType = importlib.import_module("cli.app")

    def run(argv: list[str]) -> int:
        code: int = app.flushed(app.run(argv))
        return code

    return run


def _code() -> dict[str, int]:
    """The modules of ours that are loaded, and when each file was changed."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("cli", "shoal") and (file := getattr(module, "__file__", None)):
            with contextlib.suppress(OSError):
                found[file] = os.stat(file).st_mtime_ns  # noqa: PTH116  # a hundred of them at each command
    return found
