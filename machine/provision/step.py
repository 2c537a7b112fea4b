"""Step: one thing to do on one host, as data. `plan` makes them, `run` does them, and a dry run prints them. Pure."""

from __future__ import annotations

import enum
import shlex

import msgspec

MASK = "***"


class Secret(str):
    """A text that no log, plan or journal shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


class Command(msgspec.Struct, frozen=True):
    """A program with its arguments, run as root. `stdin` is fed to it; a Secret there is shown to nobody."""

    argv: tuple[str, ...]
    stdin: str = ""

    def shown(self) -> str:
        """For people: what could be typed, without what it reads."""
        text = shlex.join(self.argv)
        if isinstance(self.stdin, Secret):
            return f"{text} < {MASK}"
        return f"{text} < ({len(self.stdin)} bytes)" if self.stdin else text


class Stage(enum.IntEnum):
    """What has to be done on all hosts before the next thing is begun on any."""

    PREPARE = 0
    FOUND = 1
    JOIN = 2
    SETTLE = 3


class Step(msgspec.Struct, frozen=True, tag=True):
    """`why` is what of the facts made it necessary."""

    title: str
    why: str
    stage: Stage


class Upload(Step, frozen=True):
    """Bring the artefact to the host and unpack it into its version's folder."""

    version: str
    python: str
    architecture: str


class Execute(Step, frozen=True):
    """Run commands, one after the other; the first that fails ends it."""

    commands: tuple[Command, ...]


class Join(Step, frozen=True):
    """Get a token that lets in this host alone from the manager on `via`, and give it to the host's agent."""

    via: str
    role: str
    advertise: str
    managers: tuple[str, ...]


class Ask(Step, frozen=True):
    """Run a command on another machine, `via`; `{node}` in it is the id of this one's node."""

    via: str
    argv: tuple[str, ...]


class AwaitReady(Step, frozen=True):
    """Return once the manager on `via` calls this machine's node ready."""

    via: str


AnyStep = Upload | Execute | Join | Ask | AwaitReady


def describe(step: AnyStep) -> list[str]:
    """What a dry run shows below a step's title."""
    match step:
        case Execute():
            return [command.shown() for command in step.commands]
        case Join():
            return [f"on {step.via}: create a token for one {step.role}", f"join {step.managers[0]} < {MASK}"]
        case Ask():
            return [f"on {step.via}: {shlex.join(step.argv)}"]
        case AwaitReady():
            return [f"on {step.via}: wait until the node is ready"]
        case _:
            return []
