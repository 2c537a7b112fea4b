"""Shell completion: a script per shell that asks `shoal __complete`, and what that answers.

Commands and flags come from the registry; names of containers, services… from the daemon, if it answers in time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated

from cli.client import Client
from cli.command import argument, command
from cli.endpoint import Selection
from cli.group import load
from cli.registry import COMMANDS, GROUPS
from shoal.errors import InvalidArgument, ShoalError
from shoal.v1 import control_pb2, engine_pb2

_WAIT_S = 1.0
_GLOBAL_WITH_VALUE = frozenset({"-H", "--host", "-c", "--context", "--node", "--tlscacert", "--tlscert", "--tlskey"})

_SCRIPTS = {
    "bash": """\
_shoal() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(shoal __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$2"))
    [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default
}
complete -F _shoal shoal
""",
    "zsh": """\
#compdef shoal
_shoal() {
    local -a found
    found=(${(f)"$(shoal __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
compdef _shoal shoal
""",
    "fish": """\
function __shoal
    set -l typed (commandline -opc) (commandline -ct)
    shoal __complete -- $typed[2..-1] 2>/dev/null
end
complete -c shoal -a '(__shoal)'
""",
}


@command("bash|zsh|fish", examples=["source <(shoal completion bash)", "shoal completion fish | source"])
def completion(shell: Annotated[str, argument()]) -> None:
    """Print the completion script for bash, zsh or fish"""
    if shell not in _SCRIPTS:
        raise InvalidArgument(f"no completion for shell '{shell}'", hint=f"use {', '.join(_SCRIPTS)}")
    print(_SCRIPTS[shell], end="")


@command("-- [WORD...]", interspersed=False)
def complete(selection: Selection, typed: Annotated[list[str], argument()] = []) -> None:  # noqa: B006
    """Print what may stand for the last word; for the scripts"""
    found = candidates(typed, lambda noun: _names(selection, noun))
    last = typed[-1] if typed else ""
    print("".join(f"{each}\n" for each in sorted(found) if each.startswith(last)), end="")


def candidates(typed: Sequence[str], names: Callable[[str], Iterable[str]]) -> Iterable[str]:
    """What may stand for the last of the words that follow the program's name."""
    path, words = _command_in(typed[:-1])
    last = typed[-1] if typed else ""
    if path not in COMMANDS:
        prefix = f"{path} " if path else ""
        return _below(prefix) if path in ("", *GROUPS) and not words else ()
    if last.startswith("-"):
        return _flags(path)
    return names(_noun(path))


def _command_in(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command or group that `words` begin with, and what follows it."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0] in _GLOBAL_WITH_VALUE else rest[1:]
    path = ""
    while rest and (f"{path} {rest[0]}".strip() in COMMANDS or f"{path} {rest[0]}".strip() in GROUPS):
        path = f"{path} {rest.pop(0)}".strip()
        if path in COMMANDS and path not in GROUPS and f"{path} {' '.join(rest[:1])}" not in COMMANDS:
            break
    return path, rest


def _below(prefix: str) -> list[str]:
    paths = [path for path, entry in COMMANDS.items() if not entry.hidden]
    paths += list(GROUPS)
    names = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    return [name for name in names if " " not in name]


def _flags(path: str) -> list[str]:
    shown = [flag for flag, _ in load(path).reader.described()]
    return [name for each in shown for name in each.names if name.startswith("--")]


def _noun(path: str) -> str:
    """What the arguments of a command are."""
    module = COMMANDS[path].function.partition(":")[0].removeprefix("cli.")
    verb = path.rpartition(" ")[2]
    if verb in ("run", "create", "rmi", "tag", "pull", "save", "history") and not path.startswith(
        ("network", "volume", "service")
    ):
        return "image"
    noun = path.partition(" ")[0]
    return noun if noun in _LISTS else module.partition(".")[0]


def _names(selection: Selection, noun: str) -> list[str]:
    """The names that the daemon knows; none when it does not answer soon."""

    async def ask() -> list[str]:
        async with asyncio.timeout(_WAIT_S), Client(selection) as client:
            return await _LISTS[noun](client)

    if noun not in _LISTS:
        return []
    try:
        return asyncio.run(ask())
    except (ShoalError, TimeoutError):
        return []


async def _containers(client: Client) -> list[str]:
    answer = await client.containers.ListContainers(engine_pb2.ListContainersRequest(all=True))
    return [each.name for each in answer.containers]


async def _images(client: Client) -> list[str]:
    answer = await client.images.ListImages(engine_pb2.ListImagesRequest())
    return [tag for each in answer.images for tag in each.tags]


async def _volumes(client: Client) -> list[str]:
    return [each.name for each in (await client.volumes.ListVolumes(engine_pb2.ListVolumesRequest())).volumes]


async def _networks(client: Client) -> list[str]:
    from cli.network import all_networks  # only for networks

    return [each.spec.name for each in await all_networks(client)]


async def _services(client: Client) -> list[str]:
    answer = await client.control.ListServices(control_pb2.ListServicesRequest())
    return [each.service.spec.name for each in answer.services]


async def _nodes(client: Client) -> list[str]:
    answer = await client.control.ListNodes(control_pb2.ListNodesRequest())
    return [each.node.description.hostname for each in answer.nodes]


_LISTS: dict[str, Callable[[Client], Awaitable[list[str]]]] = {
    "container": _containers,
    "image": _images,
    "volume": _volumes,
    "network": _networks,
    "service": _services,
    "node": _nodes,
}
