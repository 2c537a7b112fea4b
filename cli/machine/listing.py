"""Commands that show machines: what is recorded of them, whether they answer, and how to point `shoal` at one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec

from cli.command import Arguments, argument, command, flag, switch
from cli.listing import ListFlags
from cli.machine.reach import StorageFlags
from cli.output.inspection import render
from cli.output.table import Row
from cli.parse.number import natural
from machine.model import SSH_PORT, Machine
from machine.record import Record, Records
from machine.sshfile import write
from shoal import __version__
from shoal.clock import SystemClock
from shoal.errors import InvalidArgument, NotFound, ShoalError

if TYPE_CHECKING:
    from machine.port import State

_COLUMNS = ("Name", "Active", "DriverName", "State", "URL", "Swarm", "DockerVersion", "Error")
_HEADERS = {
    "Name": "NAME",
    "Active": "ACTIVE",
    "DriverName": "DRIVER",
    "URL": "URL",
    "Swarm": "SWARM",
    "DockerVersion": "DOCKER",
    "Error": "ERRORS",
}
_FILTERS: dict[str, Callable[[Row], str]] = {
    "name": lambda row: str(row["Name"]),
    "driver": lambda row: str(row["DriverName"]),
    "state": lambda row: str(row["State"]),
    "swarm": lambda row: str(row["Swarm"]).split(" ")[0],
}
DEFAULT = "default"
_TIMEOUT = Annotated[
    int, flag("-t", "--timeout", metavar="seconds", parse=natural, help="How long to wait for each machine")
]
Name = Annotated[str, argument()]


@command("[OPTIONS]", examples=["shoal machine ls", "shoal machine ls --filter state=Running -q"])
def ls(storage: StorageFlags, flags: ListFlags, timeout: _TIMEOUT = 10) -> None:
    """List machines"""
    records = storage.records().all()
    rows = [
        _row(record, state, why)
        for record, (state, why) in zip(records, _states(storage, records, timeout), strict=True)
    ]
    kept = [row for row in rows if _passes(row, flags.filter)]
    print(flags.draw(kept, columns=_COLUMNS, key="Name", headers=_HEADERS), end="")


@command(
    "[OPTIONS] [NAME...]", examples=["shoal machine inspect n1", "shoal machine inspect -f '{{.Machine.Address}}' n1"]
)
def inspect(
    storage: StorageFlags,
    names: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> None:
    """Show what is recorded of one or more machines"""
    print(render([_document(each) for each in storage.records().named(names)], format), end="")


@command("[OPTIONS] [NAME...]", examples=["shoal machine ip n1 n2"])
def ip(storage: StorageFlags, names: Annotated[list[str], argument()] = [DEFAULT]) -> None:  # noqa: B006
    """Print the address of one or more machines"""
    for each in storage.records().named(names):
        print(each.machine.address)


@command("[OPTIONS] [NAME]", examples=["shoal machine url n1"])
def url(storage: StorageFlags, name: Name = DEFAULT) -> None:
    """Print the URL by which 'shoal -H' reaches a machine"""
    print(url_of(storage.records().get(name).machine))


@command("[OPTIONS] [NAME]", examples=["shoal machine status n1"])
def status(storage: StorageFlags, name: Name = DEFAULT, timeout: _TIMEOUT = 10) -> None:
    """Print whether a machine answers"""
    ((state, _),) = _states(storage, [storage.records().get(name)], timeout)
    print(state.value)


@command("[OPTIONS] [NAME]", examples=["shoal machine version n1"])
def version(storage: StorageFlags, name: Annotated[str, argument()] = "") -> None:
    """Print the version of Shoal that was last seen on a machine, or this computer's"""
    print(storage.records().get(name).version if name else __version__)


@command("[OPTIONS]", examples=["shoal machine active"])
def active(storage: StorageFlags) -> None:
    """Print which machine SHOAL_HOST means"""
    for each in storage.records().all():
        if _is_active(each.machine):
            print(each.machine.name)
            return
    raise NotFound("No active host found", hint="choose one with 'eval $(shoal machine env NAME)'")


@command("[OPTIONS] [NAME]", examples=["shoal $(shoal machine config n1) ps"])
def config(storage: StorageFlags, name: Name = DEFAULT) -> None:
    """Print the flags by which 'shoal' reaches a machine"""
    print(f"--host={url_of(storage.records().get(name).machine)}")


@command("[OPTIONS] [NAME]", examples=["eval $(shoal machine env n1)", "eval $(shoal machine env -u)"])
def env(
    storage: StorageFlags,
    name: Name = DEFAULT,
    shell: Annotated[str, flag("--shell", help="Shell to speak to: sh, fish, tcsh, cmd, powershell or emacs")] = "",
    unset: Annotated[bool, switch("-u", "--unset", help="Unset the variables instead")] = False,
) -> None:
    """Print the commands that point 'shoal' at a machine"""
    spoken = shell or os.path.basename(os.environ.get("SHELL", "sh"))  # noqa: PTH119
    if shell and shell not in _SET:
        raise InvalidArgument(f'unknown shell "{shell}"', hint=f"there are {', '.join(_SET)}")
    values = dict.fromkeys(("SHOAL_HOST", "SHOAL_SSH_CONFIG", "SHOAL_MACHINE_NAME"), "")
    if not unset:
        records = storage.records()
        records.get(name)
        values = dict(zip(values, (f"ssh://{name}", str(write(records)), name), strict=True))
    set_it, unset_it = _SET.get(spoken, _SET["sh"]), _UNSET.get(spoken, _UNSET["sh"])
    for key, value in values.items():
        print(unset_it.format(key=key) if unset else set_it.format(key=key, value=value, quoted=shlex.quote(value)))


# Of each shell: how a variable is set, and unset.
_SET = {
    "sh": "export {key}={quoted}",
    "bash": "export {key}={quoted}",
    "zsh": "export {key}={quoted}",
    "fish": "set -gx {key} {quoted};",
    "tcsh": "setenv {key} {quoted};",
    "cmd": "SET {key}={value}",
    "powershell": '$Env:{key} = "{value}"',
    "emacs": '(setenv "{key}" "{value}")',
}
_UNSET = {
    "sh": "unset {key}",
    "fish": "set -e {key};",
    "tcsh": "unsetenv {key};",
    "cmd": "SET {key}=",
    "powershell": "Remove-Item Env:\\{key}",
    "emacs": '(setenv "{key}" nil)',
}


def url_of(machine: Machine) -> str:
    """As `-H` takes it, where the user's own ssh_config knows the rest; `env` needs none."""
    user = f"{machine.ssh.user}@" if machine.ssh.user else ""
    port = f":{machine.ssh.port}" if machine.ssh.port not in (0, SSH_PORT) else ""
    address = f"[{machine.address}]" if ":" in machine.address else machine.address
    return f"ssh://{user}{address}{port}"


def _states(storage: StorageFlags, records: list[Record], timeout_s: int) -> list[tuple[State, str]]:
    """Hosts that exist are called, those of another driver are its to know."""
    from machine.port import states
    from machine.transport.config import Config

    existing = [each.machine for each in records if each.driver == "ssh"]
    found = dict(
        zip((each.name for each in existing), states(existing, Config.load(), timeout_s=timeout_s), strict=True)
    )
    found |= {each.machine.name: _state_of(storage, each) for each in records if each.driver != "ssh"}
    return [found[each.machine.name] for each in records]


def _state_of(storage: StorageFlags, record: Record) -> tuple[State, str]:
    from machine.drivers.choice import driver_of
    from machine.port import State

    def nobody() -> NoReturn:
        raise AssertionError("a driver that makes hosts logs in at none")

    try:
        with driver_of(record.driver, storage.records(), dial=nobody, clock=SystemClock()) as driver:
            return driver.state(record.machine), ""
    except ShoalError as error:
        return State.ERROR, str(error)


def _is_active(machine: Machine) -> bool:
    return os.environ.get("SHOAL_HOST", "") in (url_of(machine), f"ssh://{machine.name}")


def _row(record: Record, state: State, why: str) -> Row:
    return {
        "Name": record.machine.name,
        "Active": "*" if _is_active(record.machine) else "-",
        "DriverName": record.driver,
        "State": state.value,
        "URL": url_of(record.machine),
        "Swarm": f"{record.cluster_id} ({record.machine.role.value})" if record.cluster_id else "",
        "DockerVersion": record.version or "Unknown",
        "Error": why or record.failed,
    }


def _passes(row: Row, filters: list[str]) -> bool:
    """Values of one key are alternatives, keys add up; a name is a regular expression, as docker-machine has it."""
    import re

    wanted: dict[str, list[str]] = {}
    for each in filters:
        key, equals, value = each.partition("=")
        if key not in _FILTERS or not equals:
            raise InvalidArgument(f'invalid filter "{each}"', hint=f"filter by {', '.join(_FILTERS)}")
        wanted.setdefault(key, []).append(value)

    def matches(key: str, value: str) -> bool:
        found = _FILTERS[key](row)
        return re.search(value, found) is not None if key == "name" else found.lower() == value.lower()

    return all(any(matches(key, value) for value in values) for key, values in wanted.items())


def _document(record: Record) -> dict[str, Any]:
    """docker's way of writing keys."""
    held: dict[str, Any] = msgspec.to_builtins(record)
    machine = {_key(name): value for name, value in held.pop("machine").items()}
    machine["SSH"] = {_key(name): value for name, value in machine["SSH"].items()}
    return {"Machine": machine, **{_key(name): value for name, value in held.items()}}


def _key(name: str) -> str:
    words = {"id": "ID", "ssh": "SSH", "ns": "NS"}
    return "".join(words.get(word, word.capitalize()) for word in name.split("_"))


def find_all(records: Records, names: list[str]) -> list[Record]:
    """The records of names, in that order. Raises NotFound for none at all."""
    found = records.named(names)
    if not found:
        raise NotFound("there are no machines", hint="'shoal machine apply' and 'create' make some")
    return found
