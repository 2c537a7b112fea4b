"""A daemon as a process: one per directory, ended by a signal, known to systemd, dead with one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvloop

from shoal import log as logs
from shoal.errors import ShoalError, Unavailable

log = logging.getLogger(__name__)


def run(program: str, log_level: str, folder: Path, serve: Coroutine[Any, Any, None]) -> None:
    """Run `serve` as the one process with `folder`; exits 1 with one sentence when it cannot go on."""
    try:
        logs.setup(log_level)
        allow_files()
        os.umask(0o022)
        with _lock(folder, program):
            uvloop.run(serve)
    except (ShoalError, OSError) as error:
        sys.exit(f"{program}: {error}")
    except ExceptionGroup as group:
        cause = _first(group)
        if not isinstance(cause, ShoalError):
            log.critical("%s cannot go on", program, exc_info=group)
        sys.exit(f"{program}: {cause}")
    finally:
        serve.close()


def collect_rarely() -> None:
    """Of a process with all that it imports: look for cyclic garbage after 50,000 new objects, not 700 (gc). Nearly all
    that a daemon holds and throws away has no cycles, and looking took a quarter of a manager's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def allow_files() -> None:
    """As many open files as the host lets this process have (getrlimit(2)): a session of an agent takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Ending(asyncio.Event):
    """Set once this process was asked to end. `for_a_restart`: whoever asked starts it again at once."""

    for_a_restart = False


RESTART_SIGNAL = signal.SIGUSR1


def asked_to_end() -> Ending:
    """By SIGTERM or SIGINT, or for a restart by SIGUSR1."""
    ending = Ending()

    def restart() -> None:
        ending.for_a_restart = True
        ending.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(RESTART_SIGNAL, restart)
    return ending


def notify(state: str) -> None:
    """Tell systemd, where it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.connect("\0" + address[1:] if address.startswith("@") else address)
        link.send(state.encode())


def absolute(text: str) -> Path:
    """An argument that is a path."""
    return Path(text).absolute()


@contextlib.contextmanager
def _lock(folder: Path, program: str) -> Iterator[None]:
    """For as long as the block lasts (flock(2)): a killed process leaves no lock behind.

    Raises Unavailable while another holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (folder / f"{program}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                f"another {program} runs with {folder}", hint="end it first, or choose another directory"
            ) from error
        yield


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first cause in a group of groups; all of it is in the log."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
