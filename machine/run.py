"""Run: the steps of a plan, on all hosts side by side, stage by stage; each is written down before it is done.

A step that fails ends its host's part in the run, and no other's. Every step may be done again: one that was done
already changes nothing, so a run that was killed anywhere is continued by planning anew.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from machine import artefact
from machine.fleet import Fleet, Host
from machine.journal import Journal
from machine.provision import layout
from machine.provision.plan import until
from machine.provision.step import AnyStep, Ask, AwaitReady, Command, Execute, Join, Secret, Stage, Upload
from machine.record import Records
from shoal.errors import DeadlineExceeded, ShoalError, Unavailable

UPLOADS = 8
# How long a host may be silent: more than any command waits by itself, and a slow one unpacks in it.
SILENCE_S = 300.0
_READY_S = 60
# In place of `shoal swarm join`, whose token would stand among the arguments of a process.
_JOIN = (
    "import sys, shoal; from cli.app import run; token = sys.stdin.readline().strip(); "
    "sys.exit(run(['swarm', 'join', '--token', token, '--advertise-addr', sys.argv[2], sys.argv[1]]))"
)

# Tells of a machine's step: "doing", "done", or how it failed.
Tell = Callable[[str, AnyStep, str], None]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one machine: how many steps were done, and why no more; empty when all were."""

    done: int
    failed: str = ""


class Runner:
    """Does plans of machines that a fleet is logged in at."""

    def __init__(self, fleet: Fleet, records: Records, journal: Journal, *, tell: Tell) -> None:
        self._fleet = fleet
        self._records = records
        self._journal = journal
        self._tell = tell
        self._uploading = threading.BoundedSemaphore(UPLOADS)
        # A cluster takes one new manager at a time: each changes the quorum of the store.
        self._promoting = threading.Lock()
        self._done: dict[str, int] = {}
        self._failed: dict[str, str] = {}

    def run(self, steps: Mapping[str, Sequence[AnyStep]], *, failed: Mapping[str, str]) -> dict[str, Outcome]:
        """Do all of it; the outcome of each machine. Nobody is asked for anything on those that `failed` before."""
        self._failed.update(failed)
        for stage in Stage:
            self._run_stage({name: [step for step in steps[name] if step.stage is stage] for name in steps})
        return {name: Outcome(self._done.get(name, 0), self._failed.get(name, "")) for name in steps}

    def _run_stage(self, due: Mapping[str, Sequence[AnyStep]]) -> None:
        names = [name for name in due if due[name] and name not in self._failed]
        ended = self._fleet.each(names, lambda name: self._do_all(name, due[name]))
        for name, error in ended.items():
            if isinstance(error, ShoalError):
                self._failed[name] = str(error)

    def _do_all(self, name: str, steps: Sequence[AnyStep]) -> None:
        for step in steps:
            self._records.change(name, doing=step.title, failed="")
            self._tell(name, step, "doing")
            try:
                self._do(name, step)
            except ShoalError as error:
                self._records.change(name, failed=f"{step.title}: {error}")
                self._tell(name, step, str(error))
                raise ShoalError(f"{step.title}: {error.message}", hint=error.hint) from error
            self._done[name] = self._done.get(name, 0) + 1
            self._tell(name, step, "done")
        self._records.change(name, doing="")

    def _do(self, name: str, step: AnyStep) -> None:
        match step:
            case Upload():
                self._install(name, step)
            case Execute():
                for command in step.commands:
                    self._check(name, step, command)
            case Join(role="manager"):
                with self._promoting:
                    self._join(name, step)
            case Join():
                self._join(name, step)
            case Ask():
                node_id = self._node_id(name)
                argv = tuple(node_id if each == "{node}" else each for each in step.argv)
                self._check(self._manager(step).machine.name, step, _shoal(*argv))
            case AwaitReady():
                self._await_ready(name, step)

    def _install(self, name: str, step: Upload) -> None:
        minor = step.python.rpartition("python")[2]
        made = artefact.obtain(artefact.Target(minor, step.architecture), self._records.artefacts)
        folder = f"{layout.ROOT}/{step.version}"
        archive = f"{folder}.tar"
        self._check(name, step, Command(("mkdir", "-p", layout.ROOT)))
        with self._uploading:
            began = time.monotonic()
            self._fleet.host(name).connection.upload(made.path, archive)
        sent = Command(("upload", made.path.name, archive))
        self._journal.note(name, step.title, sent, code=0, seconds=time.monotonic() - began)
        argv = (step.python, "-I", "-", archive, made.sha256, folder, step.python)
        self._check(name, step, Command(argv, stdin=unpack_program()))

    def _join(self, name: str, step: Join) -> None:
        """A token is good for one host and a quarter of an hour, and stands nowhere but in memory."""
        words = ("swarm", "token", "create", "-q", "--role", step.role, "--description", f"machine {name}")
        token = self._check(self._manager(step).machine.name, step, _shoal(*words)).strip()
        argv = ("env", "SHOAL_WARM=0", layout.PYTHON, "-c", _JOIN, step.managers[0], step.advertise)
        self._check(name, step, Command(argv, stdin=Secret(f"{token}\n")))

    def _await_ready(self, name: str, step: AwaitReady) -> None:
        facts = self._fleet.host(name).facts(nodes=False)
        if facts.membership is None:
            raise Unavailable("the host has no certificate of a cluster")
        node_id, cluster_id = facts.membership.node_id, facts.membership.cluster_id
        ask = f"{layout.SHOAL} node inspect -f '{{{{.Status.State}}}}' {node_id}"
        answer = self._manager(step).run(until(f'[ "$({ask} 2> /dev/null)" = ready ]', _READY_S, ask))
        if answer.code:
            raise DeadlineExceeded(
                f"the manager on {step.via} does not call it ready within {_READY_S} s; "
                f"it says {(answer.stdout or answer.stderr).strip()!r}"
            )
        manager = self._manager(step).machine.reached_at
        values = {"node_id": node_id, "cluster_id": cluster_id, "version": facts.current, "manager": manager}
        self._records.change(name, **values)

    def _manager(self, step: Join | Ask | AwaitReady) -> Host:
        """Who is asked. Raises Unavailable when that host's own part has failed."""
        host = self._fleet.find(step.via)
        if host is None or step.via in self._failed:
            raise Unavailable(f"the manager on {step.via} is needed for it, and {step.via} failed")
        return host

    def _node_id(self, name: str) -> str:
        membership = self._fleet.host(name).facts(nodes=False).membership
        if membership is None:
            raise Unavailable("the host has no certificate of a cluster")
        return membership.node_id

    def _check(self, name: str, step: AnyStep, command: Command) -> str:
        """Run one command, with its line in the journal; its output. Raises ShoalError when it fails."""
        answer = self._fleet.host(name).run(command, timeout_s=SILENCE_S)
        self._journal.note(name, step.title, command, code=answer.code, seconds=answer.seconds)
        if answer.code:
            said = (answer.stderr or answer.stdout).strip().removeprefix("Error: ")
            raise ShoalError(said or f"{command.argv[0]} ended with code {answer.code}")
        return answer.stdout


def _shoal(*words: str) -> Command:
    """A command of the host's own client. It leaves no warm process behind, which would be one of an old version
    after the next upgrade."""
    return Command(("env", "SHOAL_WARM=0", layout.SHOAL, *words))


def unpack_program() -> str:
    """The text of `unpack`, which runs on import and so cannot be imported here."""
    spec = importlib.util.find_spec("machine.unpack")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
