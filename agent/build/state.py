"""What a stage has come to: the image's configuration, and which arguments it knows. Pure.

An instruction that changes files is somebody else's (`step`); here is what all of them say of the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.build.graph import argument_values
from agent.build.parser import Instruction
from agent.image import change
from agent.image.change import Scope
from shoal.model.image import ImageConfig

# Known to every RUN without an ARG, and no reason to run it again
# (https://docs.docker.com/reference/dockerfile/#predefined-args).
PROXIES = tuple(
    each
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for each in (name, name.lower())
)
# They say something of the image and change no file.
SAYINGS = frozenset(change.CHANGES) - {"WORKDIR"}


class State(msgspec.Struct, frozen=True):
    """`arguments` are those that the stage declared, with their values; `commanded`: CMD was said in it."""

    config: ImageConfig = ImageConfig()
    arguments: dict[str, str] = {}
    author: str = ""
    commanded: bool = False
    escape: str = "\\"

    @property
    def variables(self) -> dict[str, str]:
        """By which instructions are expanded: what the image's environment says counts."""
        return {**self.arguments, **change.environment(self.config)}

    @property
    def scope(self) -> Scope:
        return Scope(self.variables, self.escape)


def said(state: State, found: Instruction) -> State:
    """After an instruction of `SAYINGS`, WORKDIR or MAINTAINER."""
    if found.keyword == "MAINTAINER":
        return msgspec.structs.replace(state, author=found.text)
    heredocs = "".join(f"\n{each.content}{each.name}" for each in found.heredocs)
    text = " ".join((*found.flags, found.text)) + heredocs
    config = change.changed(state.config, found.keyword, text, state.scope)
    if found.keyword == "ENTRYPOINT" and not state.commanded:
        config = msgspec.structs.replace(config, cmd=())
    return msgspec.structs.replace(state, config=config, commanded=state.commanded or found.keyword == "CMD")


def argued(state: State, found: Instruction, *, given: Mapping[str, str], known: Mapping[str, str]) -> State:
    """After an ARG: the user's value, else the default, else what was `known` before the first FROM."""
    arguments = dict(state.arguments)
    for name, default in argument_values(found, state.variables, state.escape):
        value = given.get(name, known.get(name) if default is None else default)
        if value is not None:
            arguments[name] = value
    return msgspec.structs.replace(state, arguments=arguments)


def run_environment(state: State, given: Mapping[str, str]) -> dict[str, str]:
    """What a RUN sees besides the image's own environment: arguments, and proxies that the user gave."""
    proxies = {name: given[name] for name in PROXIES if name in given}
    return {**proxies, **state.arguments}


def triggers(config: ImageConfig) -> tuple[ImageConfig, tuple[str, ...]]:
    """What a base image wants done first in a build on top of it; the image that results does not want it again."""
    return msgspec.structs.replace(config, on_build=()), config.on_build
