"""The warm path: a command run by a fork is the command that it would have been, and whoever is unlike runs cold."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.signals import none_ignored

ROOMS = Path(__file__).parents[4]
# What `shoal` does, but for saying so when it comes to the slow part.
ENTRY = """
import sys
sys.argv = ["shoal", *sys.argv[1:]]
from cli.warm.client import hand_over
hand_over()
print("cold", flush=True)
from cli.app import main
main()
"""
DEADLINE_S = 120


class Terminal:
    """Runs commands as one login does: with one folder for its warm process."""

    def __init__(self, folder: Path, rooms: Path) -> None:
        self.folder = folder
        self.server: int | None = None
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONPATH": str(rooms),
        }

    def start(self, *argv: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", ENTRY, *argv],
            env={**self.environment, **environment},
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str, prefix: tuple[str, ...] = (), **environment: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*argv, prefix=prefix, **environment)
        out, err = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out, err

    def warm_up(self, prefix: tuple[str, ...] = ()) -> None:
        """What a command that spoke to a daemon does at its end; returns once the process listens."""
        code = "from cli.warm.successor import leave_behind; leave_behind()"
        subprocess.run([*prefix, sys.executable, "-c", code], env=self.environment, check=True)
        assert wait_until(lambda: self._listening() is not None), "nothing was left behind"
        self.server = self._listening()

    def _listening(self) -> int | None:
        """The pid of who listens."""
        for path in self.folder.glob("shoal-warm-*/*"):
            with socket.socket(socket.AF_UNIX) as asking:
                try:
                    asking.connect(str(path))
                except OSError:
                    continue
                return int(struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
        return None

    def end(self) -> None:
        if pid := self._listening():
            descriptor = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([descriptor], [], [], DEADLINE_S)
            os.close(descriptor)


def wait_until(true: object, seconds: float = DEADLINE_S) -> bool:
    """Poll: nothing tells us when another process is where we want it."""
    assert callable(true)
    for _ in range(int(seconds * 50)):
        if true():
            return True
        select.select([], [], [], 0.02)
    return False


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    with none_ignored():
        yield


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    # /run for this user, but short enough for a socket's name.
    folder = Path(f"/tmp/shoal-test-{os.getpid()}")
    folder.mkdir(mode=0o700)
    terminal = Terminal(folder, ROOMS)
    yield terminal
    terminal.end()
    shutil.rmtree(folder)


class Daemon:
    """One that takes what it is told and never says a word."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._listening.settimeout(DEADLINE_S)

    def spoken_to(self) -> socket.socket:
        """The connection on which the next command has begun to speak; others knock and go."""
        while True:
            connection, _ = self._listening.accept()
            if connection.recv(1):
                return connection
            connection.close()

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def daemon(terminal: Terminal) -> Iterator[Daemon]:
    daemon = Daemon(terminal.folder / "daemon.sock")
    yield daemon
    daemon.close()


def test_a_warm_command_is_the_command(terminal: Terminal) -> None:
    cold = [terminal.run(*argv) for argv in (["version"], ["context", "ls"], ["run", "--nonsense"], ["nonsense"])]
    terminal.warm_up()
    warm = [terminal.run(*argv) for argv in (["version"], ["context", "ls"], ["run", "--nonsense"], ["nonsense"])]
    assert warm == [(code, out.removeprefix("cold\n"), err) for code, out, err in cold]
    assert [code for code, _, _ in warm] == [1, 0, 125, 1]


def test_it_has_the_environment_the_folder_and_the_umask_of_who_typed_it(terminal: Terminal) -> None:
    terminal.warm_up()
    umask = ("sh", "-c", 'umask 027; exec "$@"', "sh")
    code, out, err = terminal.run("context", "create", "rack", "--host", "ssh://n1", prefix=umask, HOME=".")
    assert (code, out) == (0, "rack\n"), err
    made = [
        path for path in terminal.folder.rglob("*") if path.is_file() and "rack" in path.read_text(errors="replace")
    ]
    assert made, "the context is not below the folder in which the command was typed"
    assert terminal.run("context", "show", SHOAL_CONTEXT="rack")[:2] == (0, "rack\n")


@pytest.mark.parametrize(
    ("prefix", "environment"),
    [
        ((), {"SHOAL_WARM": "0"}),
        ((), {"LC_ALL": "C"}),
        ((), {"LD_PRELOAD": ""}),
        ((), {"PYTHONWARNINGS": "default"}),
        (("prlimit", "--nofile=512:512"), {}),
        (("nice", "-n", "3"), {}),
        (("setpriv", "--no-new-privs"), {}),
        (("setpriv", "--bounding-set=-sys_admin"), {}),
        (("unshare", "--uts", "--net"), {}),
        (("sh", "-c", 'exec "$@" <&-', "sh"), {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict | tuple) else str(value),
)
def test_who_is_unlike_the_warm_process_runs_cold(
    terminal: Terminal, prefix: tuple[str, ...], environment: dict[str, str]
) -> None:
    terminal.warm_up()
    assert terminal.run("context", "show")[1] == "default\n"
    code, out, _ = terminal.run("context", "show", prefix=prefix, **environment)
    assert (code, out) == (0, "cold\ndefault\n")


def test_an_environment_that_is_larger_than_a_sockets_buffer_is_lent(terminal: Terminal) -> None:
    terminal.environment |= {f"LARGE{number}": "x" * 100_000 for number in range(6)}
    terminal.warm_up()
    assert terminal.run("context", "show") == (0, "default\n", "")


def test_a_folder_that_others_can_write_to_is_not_trusted(terminal: Terminal) -> None:
    terminal.warm_up()
    (folder,) = terminal.folder.glob("shoal-warm-*")
    folder.chmod(0o770)
    assert terminal.run("context", "show")[1] == "cold\ndefault\n"


# Started as by nohup(1), or in the background of a script, whose commands ignore ^C.
DEAF = ("bash", "-c", 'trap "" INT; exec "$@"', "bash")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(terminal: Terminal, daemon: Daemon, number: signal.Signals) -> None:
    cold = _ended_by(terminal, daemon, number)
    terminal.warm_up()
    assert _ended_by(terminal, daemon, number) == cold


def test_what_whoever_typed_it_ignores_the_command_ignores_alone(terminal: Terminal, daemon: Daemon) -> None:
    """And whoever left the warm process behind has no say in it."""
    terminal.warm_up(prefix=DEAF)
    assert _ended_by(terminal, daemon, signal.SIGINT) == 130
    process = terminal.start("-H", daemon.address, "ps", prefix=DEAF)
    with daemon.spoken_to() as connection:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # comes behind it, and is heeded
        process.communicate(timeout=DEADLINE_S)
        connection.close()
    assert process.returncode == -signal.SIGTERM


def test_a_command_ends_with_its_client(terminal: Terminal, daemon: Daemon) -> None:
    terminal.warm_up()
    process = terminal.start("-H", daemon.address, "ps")
    with daemon.spoken_to() as connection:
        process.kill()
        process.communicate(timeout=DEADLINE_S)
        while connection.recv(4096):
            pass
    assert terminal.run("context", "show")[1] == "default\n", "the warm process went with it"


def test_other_code_on_the_disk_ends_the_warm_process(terminal: Terminal, tmp_path: Path) -> None:
    for room in ("cli", "shoal", "machine"):
        shutil.copytree(ROOMS / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    terminal.environment["PYTHONPATH"] = str(tmp_path)
    terminal.warm_up()
    assert terminal.server is not None
    descriptor = os.pidfd_open(terminal.server)
    assert wait_until(lambda: _watches(terminal.server, tmp_path / "cli")), "no fork watches the code"
    with (tmp_path / "cli" / "grammar.py").open("a") as file:
        file.write("# another\n")
    assert terminal.run("context", "show")[1] == "cold\ndefault\n"
    assert select.select([descriptor], [], [], DEADLINE_S)[0], "it still waits for commands"
    os.close(descriptor)


def _watches(server: int | None, folder: Path) -> bool:
    """Whether a fork of the warm process has that folder open."""
    for fork in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            if any(link.readlink() == folder for link in Path(f"/proc/{fork}/fd").iterdir()):
                return True
    return False


def test_one_that_was_killed_leaves_nothing_behind_and_is_followed_by_another(terminal: Terminal) -> None:
    terminal.warm_up()
    first = terminal.server
    children = Path(f"/proc/{first}/task/{first}/children")
    assert wait_until(lambda: children.read_text()), "no fork stands ready"
    forks = [os.pidfd_open(int(pid)) for pid in children.read_text().split()]
    terminal.end()
    for fork in forks:
        assert select.select([fork], [], [], DEADLINE_S)[0], "a fork waits for commands for good"
        os.close(fork)
    assert terminal.run("context", "show")[1] == "cold\ndefault\n"
    terminal.warm_up()
    assert terminal.server != first
    assert terminal.run("context", "show")[1] == "default\n"


def test_commands_that_come_at_once_are_each_served(terminal: Terminal) -> None:
    terminal.warm_up()
    processes = [terminal.start("context", "show") for _ in range(5)]
    assert [each.communicate(timeout=DEADLINE_S)[0] for each in processes] == ["default\n"] * 5


def _ended_by(terminal: Terminal, daemon: Daemon, number: signal.Signals) -> int:
    """The exit code of a command that a signal finds speaking to its daemon."""
    process = terminal.start("-H", daemon.address, "ps")
    with daemon.spoken_to():
        process.send_signal(number)
        print(*process.communicate(timeout=DEADLINE_S))  # for whoever reads why it failed
    return process.returncode
