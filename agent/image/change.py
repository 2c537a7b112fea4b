"""Dockerfile instructions that change an image's configuration: of a build, of `import -c`, of `commit -c`. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from agent.image import words
from shoal.duration import duration
from shoal.errors import InvalidArgument
from shoal.model.health import HealthCheck
from shoal.model.image import ImageConfig
from shoal.signals import signal_number

SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_MAX_RANGE = 65_536
_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")


class Scope(msgspec.Struct, frozen=True):
    """What stands for a variable in an instruction, and which character escapes."""

    variables: Mapping[str, str]
    escape: str = words.ESCAPE

    def whole(self, text: str) -> str:
        return words.expand(text, self.variables, self.escape)

    def split(self, text: str) -> list[str]:
        return words.split(text, self.variables, self.escape)

    def pairs(self, text: str) -> dict[str, str]:
        """All of them by what held before this instruction."""
        return {self.whole(key): self.whole(value) for key, value in words.raw_pairs(text, self.escape)}


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """`config` after the instructions in `changes`. Raises InvalidArgument naming the one that is wrong."""
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        if word.upper() not in CHANGES:
            raise InvalidArgument(
                f"{word or 'an empty line'} is not a valid change command", hint=f"use one of {', '.join(CHANGES)}"
            )
        try:
            config = changed(config, word.upper(), rest.strip(), Scope(environment(config)))
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid change {line.strip()[:200]!r}: {error.message}", hint=error.hint) from error
    return config


def changed(config: ImageConfig, keyword: str, text: str, scope: Scope) -> ImageConfig:
    """`config` after one instruction, whose keyword is one of `CHANGES`. Raises InvalidArgument."""
    if not text:
        raise InvalidArgument(f"{keyword} requires at least one argument")
    return CHANGES[keyword](config, text, scope)


def environment(config: ImageConfig) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in config.env)


def command(config: ImageConfig, text: str) -> tuple[str, ...]:
    """The JSON form is the program itself, any other is for a shell."""
    argv = _json_words(text)
    return tuple(argv) if argv is not None else (*(config.shell or SHELL), text)


def _cmd(config: ImageConfig, text: str, _scope: Scope) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=command(config, text))


def _entrypoint(config: ImageConfig, text: str, _scope: Scope) -> ImageConfig:
    return msgspec.structs.replace(config, entrypoint=command(config, text))


def _env(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    env = {**environment(config), **scope.pairs(text)}
    return msgspec.structs.replace(config, env=tuple(f"{key}={value}" for key, value in env.items()))


def _label(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    return msgspec.structs.replace(config, labels={**config.labels, **scope.pairs(text)})


def _expose(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    ports = list(config.exposed_ports)
    for word in scope.split(text):
        ports += [port for port in _ports(word) if port not in ports]
    return msgspec.structs.replace(config, exposed_ports=tuple(ports))


def _user(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    return msgspec.structs.replace(config, user=_one(text, scope))


def _volume(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    paths = [scope.whole(each) for each in _json_words(text) or ()] or scope.split(text)
    if any(not path.strip() for path in paths):
        raise InvalidArgument("a volume needs a path")
    return msgspec.structs.replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _workdir(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    """A path may hold blanks."""
    path = posixpath.normpath(posixpath.join("/", config.workdir, scope.whole(text)))
    return msgspec.structs.replace(config, workdir=path)


def _stopsignal(config: ImageConfig, text: str, scope: Scope) -> ImageConfig:
    name = _one(text, scope)
    signal_number(name)  # who stops a container of this image would be told late
    return msgspec.structs.replace(config, stop_signal=name)


def _shell(config: ImageConfig, text: str, _scope: Scope) -> ImageConfig:
    argv = _json_words(text)
    if not argv:
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    return msgspec.structs.replace(config, shell=tuple(argv))


def _onbuild(config: ImageConfig, text: str, _scope: Scope) -> ImageConfig:
    keyword = text.split(maxsplit=1)[0].upper()
    if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidArgument(f"{keyword} isn't allowed as an ONBUILD trigger")
    return msgspec.structs.replace(config, on_build=(*config.on_build, text))


def _healthcheck(config: ImageConfig, text: str, _scope: Scope) -> ImageConfig:
    """`[--interval=5s …] CMD …`, or `NONE`."""
    flags: dict[str, str] = {}
    while text.startswith("--"):
        word, _, text = text.partition(" ")
        name, equals, value = word[2:].partition("=")
        if name not in _HEALTH_FLAGS or not equals:
            raise InvalidArgument(f"unknown flag {word}", hint=f"use --{', --'.join(_HEALTH_FLAGS)}")
        flags[name], text = value, text.strip()
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE" and not rest.strip():
        return msgspec.structs.replace(config, health=HealthCheck(test=("NONE",)))
    if kind.upper() != "CMD" or not rest.strip():
        raise InvalidArgument("a healthcheck is CMD and a command, or NONE")
    argv = _json_words(rest.strip())
    check = HealthCheck(
        test=("CMD", *argv) if argv is not None else ("CMD-SHELL", rest.strip()),
        interval_ns=duration(flags.get("interval", "0")),
        timeout_ns=duration(flags.get("timeout", "0")),
        start_period_ns=duration(flags.get("start-period", "0")),
        start_interval_ns=duration(flags.get("start-interval", "0")),
        retries=_retries(flags.get("retries", "0")),
    )
    return msgspec.structs.replace(config, health=check)


def _retries(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise InvalidArgument(f"--retries must be a number, not {text!r}")
    return int(text)


CHANGES: dict[str, Callable[[ImageConfig, str, Scope], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _json_words(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        return None


def _ports(word: str) -> list[str]:
    found = _PORT.fullmatch(word)
    if found is None:
        raise InvalidArgument(f"invalid port {word!r}", hint="write 80, 53/udp or 7000-7010")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 0 < first <= last < _MAX_RANGE:
        raise InvalidArgument(f"invalid port {word!r}", hint="ports are 1 to 65535")
    return [f"{port}/{(found[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _one(text: str, scope: Scope) -> str:
    found = scope.split(text)
    if len(found) != 1:
        raise InvalidArgument("exactly one argument is required")
    return found[0]
