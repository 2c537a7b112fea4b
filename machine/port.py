"""Whether a machine's first hop answers: a TCP connection to its SSH port, and nothing said on it."""

from __future__ import annotations

import enum
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from machine.model import Machine
from machine.transport.config import Config


class State(enum.Enum):
    """docker-machine's words."""

    RUNNING = "Running"
    STOPPED = "Stopped"
    TIMEOUT = "Timeout"
    ERROR = "Error"


def states(machines: Sequence[Machine], config: Config, *, timeout_s: float) -> list[tuple[State, str]]:
    """Of each machine, asked side by side: its state, and what is wrong."""

    def one(machine: Machine) -> tuple[State, str]:
        hop = config.way(machine)[0]
        try:
            socket.create_connection((hop.address, hop.port), timeout=timeout_s).close()
        except TimeoutError:
            return State.TIMEOUT, ""
        except ConnectionRefusedError:
            return State.STOPPED, ""
        except OSError as error:
            return State.ERROR, error.strerror or str(error)
        return State.RUNNING, ""

    with ThreadPoolExecutor(64) as pool:
        return list(pool.map(one, machines))
