"""Which stages a Dockerfile has, what each takes from others, and which of them the target needs. Pure.

Arguments before the first FROM are known to FROM lines alone; a stage that wants one says ARG again (`state`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from agent.build import flags
from agent.build.parser import Dockerfile, DockerfileError, Instruction, located
from agent.image import words
from shoal.errors import InvalidArgument

SCRATCH = "scratch"
_NAME = re.compile(r"[a-z][a-z0-9._-]*")


class Stage(msgspec.Struct, frozen=True):
    """`base` is another stage's number, or the name of an image. `origins`: the stages that its instructions copy or
    mount from, by number."""

    number: int
    name: str
    base: int | str
    platform: str
    head: Instruction
    body: tuple[Instruction, ...]
    origins: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """What progress calls it."""
        return self.name or f"stage-{self.number}"


class Graph(msgspec.Struct, frozen=True):
    """`arguments` are those before the first FROM, with their values."""

    stages: tuple[Stage, ...]
    target: int
    arguments: dict[str, str]

    def find(self, name: str, before: int) -> int | None:
        """The stage that `--from=name` means in the stage number `before`: by name, the nearest first, or by number."""
        return _find(self.stages[:before], name)

    def needed(self) -> list[int]:
        """The target and all that it takes something from, in their order."""
        found: set[int] = set()
        waiting = [self.target]
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            found.add(number)
            stage = self.stages[number]
            waiting += [*stage.origins, *([stage.base] if isinstance(stage.base, int) else [])]
        return sorted(found)


def graph(
    dockerfile: Dockerfile, *, target: str = "", given: Mapping[str, str], predefined: Mapping[str, str]
) -> Graph:
    """`given` are the user's build arguments, `predefined` those of platforms. Raises DockerfileError."""
    head, rest = _before_from(dockerfile.instructions)
    arguments = dict(predefined)
    for each in head:
        with located(each):
            for name, value in argument_values(each, arguments, dockerfile.escape):
                if (said := given.get(name, value)) is not None:
                    arguments[name] = said
    stages: list[Stage] = []
    for lines in rest:
        with located(lines[0]):
            stages.append(_stage(lines, stages, arguments, dockerfile.escape))
    for number, stage in enumerate(stages):
        stages[number] = msgspec.structs.replace(stage, origins=_origins(stage, stages))
    return Graph(tuple(stages), _target(stages, target), arguments)


def argument_values(found: Instruction, variables: Mapping[str, str], escape: str) -> list[tuple[str, str | None]]:
    """The names of an ARG and their defaults, expanded; None where there is none."""
    if not found.text:
        raise InvalidArgument("ARG requires at least one argument")
    values: list[tuple[str, str | None]] = []
    known = dict(variables)
    for word in words.raw_words(found.text, escape):
        name, equals, default = word.partition("=")
        if not name:
            raise InvalidArgument("ARG names can not be blank")
        value = words.expand(default, known, escape) if equals else None
        values.append((words.expand(name, known, escape), value))
        if value is not None:
            known[name] = value
    return values


def _before_from(
    instructions: Sequence[Instruction],
) -> tuple[list[Instruction], list[tuple[Instruction, ...]]]:
    """The ARGs at the top, and the lines of each stage, its FROM first."""
    head: list[Instruction] = []
    stages: list[list[Instruction]] = []
    for each in instructions:
        if each.keyword == "FROM":
            stages.append([each])
        elif stages:
            stages[-1].append(each)
        elif each.keyword == "ARG":
            head.append(each)
        else:
            raise DockerfileError("no build stage in current context", each.first, each.last, hint="begin with FROM")
    if not stages:
        last = instructions[-1]
        raise DockerfileError("the Dockerfile has no build stage", last.first, last.last, hint="it needs a FROM")
    return head, [tuple(each) for each in stages]


def _stage(lines: tuple[Instruction, ...], before: Sequence[Stage], arguments: Mapping[str, str], escape: str) -> Stage:
    head, *body = lines
    said = head.words
    if len(said) not in (1, 3) or (len(said) == 3 and said[1].lower() != "as"):
        raise InvalidArgument("FROM requires either one or three arguments", hint="write FROM image AS name")
    name = said[2].lower() if len(said) == 3 else ""
    if name and (not _NAME.fullmatch(name) or name == SCRATCH):
        raise InvalidArgument(
            f"invalid name for build stage: {said[2]!r}, name can't start with a number or contain symbols"
        )
    base = words.expand(said[0], arguments, escape)
    if not base:
        raise InvalidArgument(f"base name ({said[0]}) should not be blank", hint="give the ARG in it a value")
    platform = flags.platform_of(head, lambda text: words.expand(text, arguments, escape))
    known = next((each.number for each in reversed(before) if each.name == base.lower()), None)
    return Stage(len(before), name, base if known is None else known, platform, head, tuple(body))


def _origins(stage: Stage, stages: Sequence[Stage]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for each in stage.body:
        with located(each):
            flags.check(each)
            for name in flags.origins(each):
                number = _find(stages[: stage.number], name)
                if number is not None:
                    found[number] = None
                elif name.isdecimal() or any(name.lower() == one.name for one in stages[stage.number :]):
                    raise InvalidArgument(f"invalid --from={name}: it is this stage or one that comes later")
    return tuple(found)


def _find(stages: Sequence[Stage], name: str) -> int | None:
    if name.isdecimal():
        return int(name) if int(name) < len(stages) else None
    return next((each.number for each in reversed(stages) if each.name and each.name == name.lower()), None)


def _target(stages: Sequence[Stage], target: str) -> int:
    if not target:
        return len(stages) - 1
    found = _find(stages, target)
    if found is None:
        raise InvalidArgument(f"target stage {target!r} could not be found")
    return found
