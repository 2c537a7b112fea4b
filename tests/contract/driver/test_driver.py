"""What every driver of machines must do: one suite, over the driver of hosts that exist, that of hosts inside this
machine, one of somebody else, and, where SHOAL_QEMU is set (`make test-qemu`), that of virtual machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from machine.driver import VERBS, Driver, Made
from machine.drivers.choice import driver_of
from machine.drivers.external import ExternalDriver
from machine.model import Machine
from machine.port import State
from machine.record import Records
from shoal.clock import SystemClock
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unavailable, Unsupported


class Case(NamedTuple):
    """A driver, what a host of it is made of, and what no host can be made of."""

    driver: Driver
    options: dict[str, str]
    wrong: dict[str, str]

    def create(self) -> Machine:
        return reached(self.driver.create("h1", self.options))


def reached(made: Made) -> Machine:
    return Machine("h1", made.address, ssh=made.ssh)


@pytest.fixture
def sshd() -> Iterator[int]:
    """What stands for a host that exists: something that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(__file__).parent}:{os.environ['PATH']}")


LOCAL = pytest.param(
    "local",
    # The first one makes a Debian.
    marks=[pytest.mark.timeout(900), pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")],
)
QEMU = pytest.param(
    "qemu",
    # Without KVM a boot takes minutes, and the first one makes a Debian.
    marks=[pytest.mark.timeout(3600), pytest.mark.skipif("SHOAL_QEMU" not in os.environ, reason="make test-qemu")],
)


@pytest.fixture(params=["ssh", "example", LOCAL, QEMU])
def case(request: pytest.FixtureRequest, tmp_path: Path, sshd: int) -> Iterator[Case]:
    """Of every driver."""
    with a_case(request.param, tmp_path, sshd) as case:
        yield case


@pytest.fixture(params=["example", LOCAL, QEMU])
def powerful(request: pytest.FixtureRequest, tmp_path: Path, sshd: int) -> Iterator[Case]:
    """Of drivers that have their hosts' power."""
    with a_case(request.param, tmp_path, sshd) as case:
        assert case.driver.abilities == VERBS
        yield case


def share_ground(folder: Path) -> None:
    """What hosts stand on is made once for all tests."""
    for each in ("trees", "bases"):
        shared = Path(__file__).parents[3] / "build" / each
        shared.mkdir(parents=True, exist_ok=True)
        (folder / each).symlink_to(shared)


@contextmanager
def a_case(name: str, tmp_path: Path, sshd: int) -> Iterator[Case]:
    def dial() -> Any:
        raise AssertionError("nobody is logged in at")

    share_ground(tmp_path)
    with driver_of(name, Records(tmp_path), dial=dial, clock=SystemClock()) as driver:
        existing = {"address": "127.0.0.1", "port": str(sshd)}
        case = Case(driver, existing if name == "ssh" else {}, {"colour": "blue"})
        yield case
        case.driver.remove(Machine("h1", "127.0.0.1"))


def test_a_host_that_was_made_runs(case: Case) -> None:
    assert case.driver.state(case.create()) is State.RUNNING


def test_a_host_is_made_once(case: Case) -> None:
    assert case.create() == case.create()


def test_what_cannot_be_made_is_refused(case: Case) -> None:
    with pytest.raises(InvalidArgument):
        case.driver.create("h1", case.wrong)


def test_a_host_that_was_stopped_starts_again(powerful: Case) -> None:
    machine = powerful.create()
    for _ in range(2):
        powerful.driver.stop(machine)
        assert powerful.driver.state(machine) is State.STOPPED
    for _ in range(2):
        machine = reached(powerful.driver.start(machine))
        assert powerful.driver.state(machine) is State.RUNNING


def test_a_host_whose_power_was_cut_starts_again(powerful: Case) -> None:
    machine = powerful.create()
    powerful.driver.kill(machine)
    assert powerful.driver.state(machine) is State.STOPPED
    assert powerful.driver.state(reached(powerful.driver.start(machine))) is State.RUNNING


def test_a_host_runs_after_a_restart(powerful: Case) -> None:
    machine = powerful.create()
    assert powerful.driver.state(reached(powerful.driver.restart(machine))) is State.RUNNING


def test_a_host_that_is_gone_is_removed(case: Case) -> None:
    machine = case.create()
    for _ in range(2):
        case.driver.remove(machine)


def test_what_a_driver_cannot_do_it_refuses_by_name(case: Case) -> None:
    machine = case.create()
    for verb in VERBS - case.driver.abilities:
        with pytest.raises(Unsupported, match=f"cannot {verb} h1"):
            getattr(case.driver, verb)(machine)


def test_a_machine_that_a_driver_does_not_know_is_told(tmp_path: Path) -> None:
    driver = ExternalDriver.open("example", tmp_path / "drivers")
    with pytest.raises(NotFound, match='driver "example": there is no host h9'):
        driver.state(Machine("h9", "127.0.0.1"))
    driver.close()


def test_a_driver_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match='there is no driver "nowhere"') as raised:
        ExternalDriver.open("nowhere", tmp_path)
    assert "shoal-machine-driver-nowhere" in raised.value.hint


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("exit 3", Unavailable, "ended"),
        ("read x; echo no json", ShoalError, "does not keep to the protocol"),
        ('read x; echo \'{"id": 1, "result": {}}\'; cat > /dev/null', ShoalError, "does not keep to the protocol"),
        ("read x; head -c 2000000 /dev/zero", ShoalError, "in one line"),
    ],
)
def test_a_driver_that_does_not_keep_to_the_protocol_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[ShoalError], said: str
) -> None:
    program = tmp_path / "shoal-machine-driver-odd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(error, match=said):
        ExternalDriver.open("odd", tmp_path / "folder")
