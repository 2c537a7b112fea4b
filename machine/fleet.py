"""Fleet: many hosts side by side, each with one connection, one shell and a thread of its own while it is worked on.

A host that fails fails alone: its error is its result, and the others go on. `parallel` bounds how many are dialled and
worked on at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from machine.model import Machine
from machine.provision import facts as facts_of
from machine.provision.facts import Facts
from machine.provision.step import Command
from machine.transport.config import Config
from machine.transport.connection import Connection, Rules
from machine.transport.shell import Answer, Shell
from shoal.errors import Conflict, ShoalError

T = TypeVar("T")
PARALLEL = 32
_FACTS_S = 60.0


class Host:
    """One machine that we are logged in at; commands of several threads take turns in its shell."""

    def __init__(self, machine: Machine, connection: Connection, shell: Shell) -> None:
        self.machine = machine
        self.connection = connection
        self._shell = shell
        self._turn = threading.RLock()
        self._locked = False

    @classmethod
    def dial(cls, machine: Machine, config: Config, rules: Rules) -> Host:
        connection = Connection.open(config.way(machine), rules)
        try:
            return cls(machine, connection, Shell(connection).__enter__())
        except BaseException:
            connection.close()
            raise

    def run(self, command: Command, *, timeout_s: float = 120) -> Answer:
        with self._turn:
            return self._shell.run(command, timeout_s=timeout_s)

    def check(self, command: Command, *, timeout_s: float = 120) -> str:
        with self._turn:
            return self._shell.check(command, timeout_s=timeout_s)

    def lock(self, owner: str) -> None:
        """Keep other runs away from the host until the connection ends."""
        with self._turn:
            if not self._locked:
                self._shell.lock(owner)
            self._locked = True

    def facts(self, *, nodes: bool) -> Facts:
        """What it is now, in one round trip."""
        asked_at_s = time.time()
        answer = self.run(facts_of.question(nodes=nodes), timeout_s=_FACTS_S)
        return facts_of.parse(answer.stdout, asked_at_s=asked_at_s)

    def close(self) -> None:
        self.connection.close()


class Fleet:
    """The hosts of some machines. Use it as a context manager: leaving it hangs up everywhere."""

    def __init__(self, config: Config, rules: Rules, *, parallel: int = PARALLEL) -> None:
        self._config = config
        self._rules = rules
        self._pool = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="machine")
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts.values():
            host.close()  # first: it ends what a thread waits for
        self._pool.shutdown(cancel_futures=True)

    def host(self, name: str) -> Host:
        return self._hosts[name]

    def find(self, name: str) -> Host | None:
        """None where we are not logged in."""
        return self._hosts.get(name)

    def dial(self, machines: Iterable[Machine]) -> dict[str, ShoalError]:
        """Log in everywhere; the errors of those where that failed."""

        def one(machine: Machine) -> Host:
            return Host.dial(machine, self._config, self._rules)

        by_name = {each.name: each for each in machines if each.name not in self._hosts}
        dialled = self.each(by_name, lambda name: one(by_name[name]))
        self._hosts.update({name: host for name, host in dialled.items() if isinstance(host, Host)})
        return {name: error for name, error in dialled.items() if isinstance(error, ShoalError)}

    def lock(self, names: Iterable[str], owner: str) -> dict[str, ShoalError]:
        """Keep other runs away from these hosts until we hang up; the errors of those where that failed. Raises
        Conflict with who is there where another run is: two would be in each other's way on all of them. One host comes
        before the others, so that of two runs that begin at once one has them all."""
        first, *rest = sorted(names)
        failed: dict[str, ShoalError] = {}
        for group in ([first], rest):
            for name, error in self.each(group, lambda name: self.host(name).lock(owner)).items():
                if isinstance(error, Conflict):
                    raise error
                if error is not None:
                    failed[name] = error
        return failed

    def each(self, names: Iterable[str], work: Callable[[str], T]) -> dict[str, T | ShoalError]:
        """Do `work` for all names at once; what it returned, or the ShoalError that it raised, by name."""

        def one(name: str) -> T | ShoalError:
            try:
                return work(name)
            except ShoalError as error:
                return error

        doing = {name: self._pool.submit(one, name) for name in names}
        return {name: future.result() for name, future in doing.items()}
