"""Containers that another OCI runtime runs: crun, runc, or shoal-runtime itself, told what to do by its command line.

Everything else stays the keeper's: the FIFOs and the log, exec, pause, statistics, and the process itself, which the
keeper gets as its nearest subreaper and knows by a pidfd before it is started. The runtime's own state lies in the
container's directory and goes with it. It runs in a mount namespace in which the container's root is mounted, so that
nothing is ever mounted in the host's; and where a host has both versions of cgroups without the second one, which crun
refuses to see.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Executor, Op, Program, Vector
from agent.runtime import confine, root, wire
from agent.runtime.cgroups.base import Layout
from agent.runtime.confine import Bounds
from agent.runtime.failure import Failure
from agent.runtime.record import Records
from agent.runtime.root import Root
from agent.runtime.spec.config import Spec
from agent.runtime.spec.process import PATH

_LOG, _PID, _TERMINAL, _STATE, _PROCESS = "runtime.log", "runtime.pid", "runtime.tty", "runtime", "runtime.process"
_ACCEPT_TIMEOUT_S = 10.0
_EXEC_TIMEOUT_S = 5.0
_VERSION = "1.0.2"  # nothing that we ask for is newer, and crun refuses versions that it does not know
_TOLD_SAYS_NOT_FOUND = ("executable file not found", "no such file or directory")
_TOLD_SAYS_NO_PROGRAM = ("permission denied", "exec format error", "is a directory", "open executable")


class Born(NamedTuple):
    """A process by its pidfd, the caller's to close, and its terminal's master or -1."""

    pid: int
    pidfd: int
    master: int


class Foreign:
    """Threads may share it. Every method takes the runtime's program, an absolute path."""

    def __init__(self, records: Records, layout: Layout, executor: Executor) -> None:
        self._records = records
        self._hidden = layout.v2 if layout.v1 else ""
        self._executor = executor

    def create(self, program: str, container: str, layers: Root, *, stdio: tuple[int, int, int] | None) -> Born:
        """A container from the bundle that `write` made; its process waits to be started. Without `stdio` it gets a
        terminal. Raises Failure with what the runtime said."""
        point = self._records.path(container, "root")
        root_ops = [root.tree(0), *root.mounted(layers, point)]
        words = ["create", "--bundle", ".", "--pid-file", _PID]
        return self._born(program, container, words, root_ops, stdio)

    def start(self, program: str, container: str, pid: int) -> None:
        """Let it go on to its command; returns when that has been exec'ed, which crun does not wait for."""
        before = _executable(pid)
        self._call(program, container, ["start", container], [root.tree(0)], None)
        deadline = time.monotonic() + _EXEC_TIMEOUT_S
        while before == _executable(pid) and time.monotonic() < deadline:
            time.sleep(0.001)  # the kernel has no event for "it has exec'ed"

    def execute(
        self, program: str, container: str, process: Mapping[str, Any], *, stdio: tuple[int, int, int] | None
    ) -> Born:
        """Another process in it."""
        path = Path(self._records.path(container, _PROCESS))
        path.write_text(json.dumps({**process, "terminal": stdio is None}), encoding="utf-8")
        words = ["exec", "--process", _PROCESS, "--detach", "--pid-file", _PID]
        return self._born(program, container, words, [root.tree(0)], stdio)

    def write(self, container: str, config: Mapping[str, Any], spec: Spec, cgroup: str, bounds: Bounds) -> None:
        """The container's directory as a bundle: our configuration in words that every runtime knows."""
        process, linux = dict(config["process"]), dict(config.get("linux") or {})
        limits = confine.limits(spec.process.rlimits, bounds)
        process["rlimits"] = [
            {"type": confine.limit_name(number), "soft": soft, "hard": hard} for number, soft, hard in limits
        ]
        linux["cgroupsPath"] = f"/{cgroup}"
        if spec.seccomp is not None:
            linux["seccomp"] = spec.seccomp
        annotations = {name: text for name, text in (config.get("annotations") or {}).items() if "shoal." not in name}
        where = {"path": self._records.path(container, "root"), "readonly": spec.readonly_root}
        bundle = {
            **config,
            "ociVersion": _VERSION,
            "process": process,
            "linux": linux,
            "annotations": annotations,
            "root": where,
        }
        Path(self._records.path(container, "config.json")).write_text(json.dumps(bundle), encoding="utf-8")

    def process(self, container: str) -> dict[str, Any]:
        """The first process of a bundle, as it was written."""
        text = Path(self._records.path(container, "config.json")).read_text(encoding="utf-8")
        process: dict[str, Any] = json.loads(text)["process"]
        return process

    def _born(
        self,
        program: str,
        container: str,
        words: list[str],
        before: list[Op],
        stdio: tuple[int, int, int] | None,
    ) -> Born:
        pid_file = Path(self._records.path(container, _PID))
        pid_file.unlink(missing_ok=True)
        with contextlib.ExitStack() as opened:
            listener: socket.socket | None = None
            if stdio is None:
                listener = opened.enter_context(wire.listen(Path(self._records.path(container, _TERMINAL))))
                words = [*words, "--console-socket", _TERMINAL]
            self._call(program, container, [*words, container], before, stdio)
            pid = int(pid_file.read_text(encoding="ascii"))
            pidfd = os.pidfd_open(pid)
            return Born(pid, pidfd, _master(listener) if listener is not None else -1)

    def _call(
        self,
        program: str,
        container: str,
        words: list[str],
        before: list[Op],
        stdio: tuple[int, int, int] | None,
    ) -> None:
        """One command of the runtime, to its end. Raises Failure with the last error in its log."""
        directory = self._records.path(container)
        log = Path(directory, _LOG)
        log.unlink(missing_ok=True)
        argv = [program, "--root", f"{directory}/{_STATE}", "--log", f"{directory}/{_LOG}", "--log-format", "json"]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            arguments = Vector(tuple(os.fsencode(word) for word in (*argv, *words)))
            environment = Vector((f"PATH={PATH}".encode(),))
            ops = [
                *before,
                *self._alone(),
                Op("enter the bundle", "chdir", (os.fsencode(directory),)),
                Op("start a session", "setsid", ()),
                Op("unblock signals", "rt_sigprocmask", (2, bytes(8), 0, 8)),
                *confine.standard_streams(*(stdio or (null, null, null))).ops,
                Op("mark descriptors close-on-exec", "close_range", (3, (1 << 32) - 1, sys.CLOSE_RANGE_CLOEXEC)),
                Op(f"run {program}", "execve", (os.fsencode(program), arguments, environment)),
            ]
            process = self._executor.start(Program((Block(ops),)), sys.CLONE_NEWNS)
        finally:
            os.close(null)
        try:
            ended = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
        finally:
            os.close(process.pidfd)
        if ended is None or ended.si_code != os.CLD_EXITED or ended.si_status:
            raise _said(log, program, words[0])

    def _alone(self) -> list[Op]:
        if not self._hidden:
            return []
        step = "put the second version of cgroups out of sight"
        return [Op(step, "umount2", (os.fsencode(self._hidden), sys.MNT_DETACH), ignore=(errno.EINVAL, errno.ENOENT))]


def _executable(pid: int) -> tuple[int, int] | None:
    """Which file a process runs; None when it has ended."""
    try:
        about = os.stat(f"/proc/{pid}/exe")  # noqa: PTH116 - a string
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _master(listener: socket.socket) -> int:
    """The terminal that the runtime sent."""
    listener.settimeout(_ACCEPT_TIMEOUT_S)
    connected, _ = listener.accept()
    with connected:
        connected.settimeout(_ACCEPT_TIMEOUT_S)
        _, fds, _, _ = socket.recv_fds(connected, 4096, 1)
    if not fds:
        raise Failure("StartFailed", "the runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    os.set_blocking(fds[0], False)
    return fds[0]


def _said(log: Path, program: str, command: str) -> Failure:
    """The last error of the runtime, in its own words."""
    message = ""
    with contextlib.suppress(OSError):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                message = json.loads(line).get("msg") or message
    lower, kind = message.lower(), "StartFailed"
    if any(words in lower for words in _TOLD_SAYS_NOT_FOUND):
        kind = "CommandNotFound"
    elif any(words in lower for words in _TOLD_SAYS_NO_PROGRAM):
        kind = "CommandNotExecutable"
    return Failure(kind, f"{program} {command}: {message or 'it failed and said nothing'}")
