"""`import -c 'CMD ["/bin/sh"]'`: Dockerfile instructions that change an image's configuration. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from shoal.duration import duration
from shoal.errors import InvalidArgument
from shoal.model.health import HealthCheck
from shoal.model.image import ImageConfig

_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:[-+])([^}]*))?\})", re.ASCII)
_MAX_RANGE = 65_536
_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """`config` after the instructions in `changes`. Raises InvalidArgument naming the one that is wrong."""
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        change = _CHANGES.get(word.upper())
        if change is None:
            raise InvalidArgument(
                f"{word or 'an empty line'} is not a valid change command", hint=f"use one of {', '.join(_CHANGES)}"
            )
        if not rest.strip():
            raise InvalidArgument(f"{word.upper()} requires at least one argument")
        try:
            config = change(config, rest.strip())
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid change {line.strip()[:200]!r}: {error.message}", hint=error.hint) from error
    return config


def _cmd(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=_command(text))


def _entrypoint(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, entrypoint=_command(text))


def _env(config: ImageConfig, text: str) -> ImageConfig:
    env = dict(entry.split("=", 1) for entry in config.env)
    env.update(_pairs(text, env))
    return msgspec.structs.replace(config, env=tuple(f"{key}={value}" for key, value in env.items()))


def _label(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, labels={**config.labels, **_pairs(text, _variables(config))})


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = list(config.exposed_ports)
    for word in split(text, _variables(config)):
        ports += [port for port in _ports(word) if port not in ports]
    return msgspec.structs.replace(config, exposed_ports=tuple(ports))


def _user(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, user=_one(text, config))


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    paths = _json_words(text) or split(text, _variables(config))
    if any(not path.strip() for path in paths):
        raise InvalidArgument("a volume needs a path")
    return msgspec.structs.replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    path = posixpath.normpath(posixpath.join(config.workdir or "/", _one(text, config)))
    return msgspec.structs.replace(config, workdir=path)


def _stopsignal(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, stop_signal=_one(text, config))


def _healthcheck(config: ImageConfig, text: str) -> ImageConfig:
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
    words = _json_words(rest.strip())
    check = HealthCheck(
        test=("CMD", *words) if words is not None else ("CMD-SHELL", rest.strip()),
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


_CHANGES: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(text: str) -> tuple[str, ...]:
    """The JSON form is the program itself, any other is for a shell."""
    words = _json_words(text)
    return tuple(words) if words is not None else (*_SHELL, text)


def _json_words(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        return None


def _pairs(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """`K=V K2="x y"`, or of old `K the whole rest`."""
    first, _, rest = text.partition(" ")
    if "=" not in first:
        if not rest.strip():
            raise InvalidArgument(f"{first} has no value", hint="write NAME=VALUE")
        return {first: expand(rest.strip(), variables)}
    pairs = {}
    for word in split(text, variables):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"{word!r} is not of the form NAME=VALUE")
        pairs[key] = value
    return pairs


def _ports(word: str) -> list[str]:
    found = _PORT.fullmatch(word)
    if found is None:
        raise InvalidArgument(f"invalid port {word!r}", hint="write 80, 53/udp or 7000-7010")
    first, last = int(found[1]), int(found[2] or found[1])
    if not 0 < first <= last < _MAX_RANGE:
        raise InvalidArgument(f"invalid port {word!r}", hint="ports are 1 to 65535")
    return [f"{port}/{(found[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _one(text: str, config: ImageConfig) -> str:
    words = split(text, _variables(config))
    if len(words) != 1:
        raise InvalidArgument("exactly one argument is required")
    return words[0]


def _variables(config: ImageConfig) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in config.env)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$K`, `${K}`, `${K:-default}` and `${K:+instead}`; what is not set is empty."""

    def value(found: re.Match[str]) -> str:
        held = variables.get(found[1] or found[2], "")
        if found[3] == ":-":
            return held or found[4]
        if found[3] == ":+":
            return found[4] if held else ""
        return held

    return _VARIABLE.sub(value, text)


def split(text: str, variables: Mapping[str, str]) -> list[str]:
    """Words as a shell splits them: quotes, backslashes, and variables outside of single quotes."""
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        char = text[at]
        if char.isspace():
            if word is not None:
                words.append(word)
            word, at = None, at + 1
            continue
        piece, at = _piece(text, at, variables)
        word = (word or "") + piece
    return words if word is None else [*words, word]


def _piece(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """The next part of a word: a quoted string, an escaped character, a variable, or a character."""
    char = text[at]
    if char == "'":
        end = text.find("'", at + 1)
        if end < 0:
            raise InvalidArgument("a single quote is not closed")
        return text[at + 1 : end], end + 1
    if char == '"':
        return _quoted(text, at + 1, variables)
    if char == "\\" and at + 1 < len(text):
        return text[at + 1], at + 2
    if found := _VARIABLE.match(text, at):
        return expand(found[0], variables), found.end()
    return char, at + 1


def _quoted(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    out = ""
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\", "$"):
            out, at = out + text[at + 1], at + 2
        elif found := _VARIABLE.match(text, at):
            out, at = out + expand(found[0], variables), found.end()
        else:
            out, at = out + text[at], at + 1
    if at >= len(text):
        raise InvalidArgument("a double quote is not closed")
    return out, at + 1
