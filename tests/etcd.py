"""Real etcd for tests: members as processes on loopback, which can be killed, frozen and started again.

They come from Debian's etcd-server and sync to a directory that the caller gives. `tests/link.py` cuts what lies
between them and a client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

READY_S = 120.0


class Member:
    """One etcd process. `client` is where it serves ("127.0.0.1:PORT")."""

    def __init__(self, name: str, folder: Path, options: Sequence[str] = (), *, tls: bool = False) -> None:
        self.name = name
        self.folder = folder
        self._options = tuple(options)
        self._scheme = "https" if tls else "http"
        self.client, self.peer, self._health = (f"127.0.0.1:{port}" for port in free_ports(3))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client_url(self) -> str:
        return f"{self._scheme}://{self.client}"

    @property
    def peer_url(self) -> str:
        return f"http://{self.peer}"

    def start(self, members: Sequence[Member] = (), *, existing: bool = False) -> None:
        """Begin to run as one of `members` (alone without any); `ready` waits until it serves."""
        program = shutil.which("etcd")
        assert program, "no etcd here; deploy/packages test installs it"
        initial = ",".join(f"{member.name}={member.peer_url}" for member in members or (self,))
        argv = [program, "--name", self.name, "--data-dir", str(self.folder / self.name), "--log-level", "error"]
        argv += ["--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url]
        argv += ["--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url]
        argv += ["--initial-cluster", initial, "--initial-cluster-state", "existing" if existing else "new"]
        argv += ["--listen-metrics-urls", f"http://{self._health}", "--logger", "zap", *self._options]
        with (self.folder / f"{self.name}.log").open("ab") as output:
            self._process = subprocess.Popen(argv, stdout=output, stderr=output)

    def ready(self) -> None:
        """Return once it is a healthy member with a leader."""
        deadline = time.monotonic() + READY_S
        while not self.healthy():
            log = self.folder / f"{self.name}.log"
            assert self.running() and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.02)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._health}/health", timeout=1) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextlib.contextmanager
def running(folder: Path, count: int = 1, options: Sequence[str] = (), *, tls: bool = False) -> Iterator[list[Member]]:
    """So many members that have found each other; killed at the end."""
    members = [Member(f"m{number}", folder, options, tls=tls) for number in range(1, count + 1)]
    try:
        for member in members:
            member.start(members)
        for member in members:
            member.ready()
        yield members
    finally:
        for member in members:
            member.kill()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
