"""The command line's grammar: which options each command has, as runc and crun know them, and what is refused.

Our own few lines instead of argparse: its import takes longer than all that is parsed here, and a flag that nobody
heeds has to be refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.runtime.failure import Failure

FLAG, VALUE, MANY = "flag", "value", "many"

_START = {
    "--bundle": VALUE,
    "--console-socket": VALUE,
    "--pid-file": VALUE,
    "--no-pivot": FLAG,
    "--no-new-keyring": FLAG,
    "--preserve-fds": VALUE,
}
GLOBAL = {
    "--root": VALUE,
    "--log": VALUE,
    "--log-format": VALUE,
    "--debug": FLAG,
    "--systemd-cgroup": FLAG,
    "--rootless": VALUE,
    "--cgroup-manager": VALUE,
    "--version": FLAG,
    "--help": FLAG,
}
LIMITS = {
    "--blkio-weight": ("blockIO", "weight"),
    "--cpu-period": ("cpu", "period"),
    "--cpu-quota": ("cpu", "quota"),
    "--cpu-burst": ("cpu", "burst"),
    "--cpu-share": ("cpu", "shares"),
    "--cpu-rt-period": ("cpu", "realtimePeriod"),
    "--cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "--cpu-idle": ("cpu", "idle"),
    "--cpuset-cpus": ("cpu", "cpus"),
    "--cpuset-mems": ("cpu", "mems"),
    "--memory": ("memory", "limit"),
    "--memory-reservation": ("memory", "reservation"),
    "--memory-swap": ("memory", "swap"),
    "--pids-limit": ("pids", "limit"),
}
COMMANDS: Mapping[str, Mapping[str, str]] = {
    "create": _START,
    "run": {**_START, "--detach": FLAG, "--keep": FLAG},
    "start": {},
    "state": {},
    "kill": {"--all": FLAG},
    "delete": {"--force": FLAG},
    "exec": {
        "--process": VALUE,
        "--detach": FLAG,
        "--tty": FLAG,
        "--console-socket": VALUE,
        "--pid-file": VALUE,
        "--cwd": VALUE,
        "--env": MANY,
        "--user": VALUE,
        "--additional-gids": MANY,
        "--cap": MANY,
        "--no-new-privs": FLAG,
        "--apparmor": VALUE,
        "--process-label": VALUE,
        "--preserve-fds": VALUE,
    },
    "ps": {"--format": VALUE},
    "events": {"--stats": FLAG, "--interval": VALUE},
    "pause": {},
    "resume": {},
    "update": {"--resources": VALUE, **dict.fromkeys(LIMITS, VALUE)},
    "list": {"--format": VALUE, "--quiet": FLAG},
    "spec": {"--bundle": VALUE},
    "features": {},
}
_LETTERS = {"-b": "--bundle", "-v": "--version", "-h": "--help", "-f": "--format", "-q": "--quiet", "-a": "--all"}
_OF_COMMAND = {
    "delete": {"-f": "--force"},
    "run": {"-d": "--detach"},
    "update": {"-r": "--resources"},
    "exec": {
        "-p": "--process",
        "-d": "--detach",
        "-t": "--tty",
        "-e": "--env",
        "-u": "--user",
        "-g": "--additional-gids",
        "-c": "--cap",
    },
}
# What follows the id is a command line of somebody else's: the container's, or ps(1)'s.
_FOR_OTHERS = ("exec", "ps")
_YES, _NO = ("true", "1"), ("false", "0")


class Options(NamedTuple):
    """Values by option. What was not given is "" or False or empty."""

    values: Mapping[str, tuple[str, ...]]

    def text(self, name: str, default: str = "") -> str:
        return self.values[name][-1] if name in self.values else default

    def given(self, name: str) -> bool:
        return self.text(name) in _YES

    def many(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def number(self, name: str) -> int:
        text = self.text(name, "0")
        if not text.isdigit():
            raise usage(f"{name} takes a number, not {text!r}")
        return int(text)


class Line(NamedTuple):
    """A command line: its global options, the command, its options and what follows them."""

    options: Options
    command: str
    own: Options
    words: tuple[str, ...]


def usage(message: str) -> Failure:
    return Failure("InvalidArgument", message, "see shoal-runtime --help")


def parse(argv: Sequence[str]) -> Line:
    """Raises Failure for an option or a command that there is not."""
    options, rest = _take(argv, GLOBAL, _LETTERS)
    if not rest:
        return Line(options, "", Options({}), ())
    command, *rest = rest
    if command == "help":
        return Line(Options({"--help": ("true",)}), "", Options({}), ())
    if command not in COMMANDS:
        raise usage(f"{command} is not a command of this runtime")
    letters = {**_LETTERS, **_OF_COMMAND.get(command, {})}
    known = {**COMMANDS[command], "--help": FLAG}
    own, rest = _take(rest, known, letters)
    words = rest[:1]
    rest = rest[1:]
    while rest and command not in _FOR_OTHERS:
        more, rest = _take(rest, known, letters)
        own = Options({**own.values, **more.values})
        words, rest = [*words, *rest[:1]], rest[1:]
    return Line(options, command, own, (*words, *rest))


def _take(argv: Sequence[str], known: Mapping[str, str], letters: Mapping[str, str]) -> tuple[Options, list[str]]:
    """Options up to the first word that is none, and the rest."""
    values: dict[str, tuple[str, ...]] = {}
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, has_value, value = word.partition("=")
        name = letters.get(name, name)
        if name not in known:
            raise usage(f"{name} is not an option of this runtime")
        if known[name] == FLAG:
            value = value if has_value else "true"
            if value not in (*_YES, *_NO):
                raise usage(f"{name} is true or false, not {value!r}")
        elif not has_value:
            if not rest:
                raise usage(f"{name} needs a value")
            value = rest.pop(0)
        values[name] = (*values.get(name, ()), value)
    return Options(values), rest
