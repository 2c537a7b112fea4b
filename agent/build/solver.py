"""The stages of a build, side by side: each goes through its instructions, and waits for another where it needs it.

What an instruction does to files is `step`'s; here is what comes before and after it, and what is told of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from agent.build import flags, parser, state
from agent.build.cache import Entry
from agent.build.graph import SCRATCH, Graph, Stage
from agent.build.job import Job, Solved, Tools
from agent.build.parser import Dockerfile, DockerfileError, Instruction, located
from agent.build.report import Handle, Reporter, layers_told
from agent.build.state import State
from agent.build.step import Stepping, Steps
from agent.image import platform as platforms
from agent.image.fresh import Making
from agent.image.pull import error_of
from shoal.errors import DeadlineExceeded, NotFound, ShoalError, Unavailable, Unsupported
from shoal.model.image import ImageConfig

# They make a layer, or may.
_MAKERS = frozenset(("RUN", "COPY", "ADD", "WORKDIR"))


class StepFailed(ShoalError):
    """`error` is what went wrong at an instruction, on top of `solved`, where anything was."""

    def __init__(self, found: Instruction, error: ShoalError, solved: Solved | None = None) -> None:
        super().__init__(error.message, hint=error.hint)
        self.solved = solved
        self.found = found
        self.error = error


class Solver:
    """One build. `solve` once."""

    def __init__(self, job: Job, dockerfile: Dockerfile, graph: Graph, tools: Tools, reporter: Reporter) -> None:
        self._job = job
        self._escape = dockerfile.escape
        self._graph = graph
        self._tools = tools
        self._reporter = reporter
        self._steps = Steps(job, tools, self._layers_of)
        self._stages: dict[int, asyncio.Task[Solved]] = {}
        self._images: dict[str, asyncio.Task[Solved | ShoalError]] = {}
        self._group = asyncio.TaskGroup()

    @property
    def came_to(self) -> Mapping[str, Entry]:
        """What the steps came to so far, by key."""
        return self._steps.came_to

    async def solve(self) -> Solved:
        """What the target came to. Raises StepFailed and DockerfileError; then all else is ended."""
        try:
            async with self._group:
                for number in self._graph.needed():
                    self._begin(number)
        except BaseExceptionGroup as error:
            raise error_of(error) from error
        return self._stages[self._graph.target].result()

    def _begin(self, number: int) -> asyncio.Task[Solved]:
        if number not in self._stages:
            self._stages[number] = self._group.create_task(self._stage(self._graph.stages[number]))
        return self._stages[number]

    async def _stage(self, stage: Stage) -> Solved:
        titles = _Titles(stage, several=len(self._graph.stages) > 1)
        solved = await self._base(stage, titles)
        config, lines = state.triggers(solved.state.config)
        with located(stage.head):
            triggers = [parser.parse_line(each, first=stage.head.first, last=stage.head.last) for each in lines]
        titles.expect(triggers)
        solved = msgspec.structs.replace(
            solved,
            state=msgspec.structs.replace(solved.state, config=config, commanded=False, escape=self._escape),
        )
        for found in (*triggers, *stage.body):
            solved = await self._instruction(solved, found, stage, titles)
        return solved

    async def _base(self, stage: Stage, titles: _Titles) -> Solved:
        if stage.platform:
            with located(stage.head):
                check_platform(stage.platform)
        if isinstance(stage.base, int):
            return await asyncio.shield(self._begin(stage.base))
        if stage.base.lower() == SCRATCH:
            return Solved(State(), (), (), None)
        try:
            return await self._image(stage.base, titles.next(f"FROM {stage.base}"))
        except ShoalError as error:
            raise StepFailed(stage.head, error) from error

    async def _image(self, name: str, title: str = "") -> Solved:
        """An image as something to stand on or to copy from; brought here once, where it is not here yet."""
        if name not in self._images:
            self._images[name] = self._group.create_task(self._brought(name, title or f"FROM {name}"))
        found = await asyncio.shield(self._images[name])
        if isinstance(found, ShoalError):
            raise found
        return found

    async def _brought(self, name: str, title: str) -> Solved | ShoalError:
        """What goes wrong is for those who wait, who know where they stand in the Dockerfile."""
        try:
            return await self._bring(name, title)
        except ShoalError as error:
            return error

    async def _bring(self, name: str, title: str) -> Solved:
        images = self._tools.images
        async with self._reporter.step(title) as handle:
            handle.cached = True
            try:
                if self._job.pull:
                    raise NotFound(name)
                document, layers = await images.workbench.base(name)
            except NotFound:
                handle.cached = False
                document, layers = await images.workbench.base(await self._fetched(name, handle))
            if not platforms.host().accepts(document.platform):
                raise Unsupported(f"image {name} is for {document.platform}, which this host cannot run")
        return Solved(State(config=document.image_config()), layers, (), document)

    async def _fetched(self, name: str, handle: Handle) -> str:
        """From another node of the cluster, or else from its registry: what the image is called here."""
        if not self._job.pull:
            with contextlib.suppress(NotFound, Unavailable, DeadlineExceeded):
                return await self._tools.bring(name)
        async with layers_told(handle) as report:
            await self._tools.images.pull(name, credentials=await self._job.login(name), progress=report)
        return name

    async def _layers_of(self, origin: str, before: int) -> Solved:
        """What `--from=origin` means in the stage number `before`."""
        number = self._graph.find(origin, before)
        if number is not None:
            return await asyncio.shield(self._begin(number))
        return await self._image(origin)

    async def _origins(self, found: Instruction, stage: Stage) -> None:
        """Wait for what an instruction takes files from: its own time begins then. What goes wrong its step tells."""
        with contextlib.suppress(ShoalError):
            for origin in flags.origins(found):
                await self._layers_of(origin, stage.number)

    async def _instruction(self, solved: Solved, found: Instruction, stage: Stage, titles: _Titles) -> Solved:
        try:
            if found.keyword == "ARG":
                after = state.argued(solved.state, found, given=self._job.arguments, known=self._graph.arguments)
                return self._told(msgspec.structs.replace(solved, state=after), found)
            if found.keyword not in _MAKERS:
                return self._told(msgspec.structs.replace(solved, state=state.said(solved.state, found)), found)
            return await self._make(solved, found, stage, titles)
        except (StepFailed, DockerfileError):
            raise
        except ShoalError as error:
            raise StepFailed(found, error, solved) from error

    async def _make(self, solved: Solved, found: Instruction, stage: Stage, titles: _Titles) -> Solved:
        after = solved.state
        if found.keyword == "WORKDIR":
            after = state.said(after, found)
            solved = msgspec.structs.replace(solved, state=after)
            if self._steps.is_folder(solved):
                async with self._reporter.step(titles.next(found.original)) as handle:
                    handle.cached = True
                return self._told(solved, found)
        await self._origins(found, stage)
        async with self._reporter.step(titles.next(found.original)) as handle:
            anew = self._job.no_cache or stage.name in self._job.no_cache_stages
            stepping = Stepping(solved, found, stage.number, handle, anew)
            layer, made_at_ns, created_by = await self._steps.make(stepping)
        made = Making(created_by, self._time(made_at_ns), empty=False, comment="shoal")
        return msgspec.structs.replace(solved, layers=(*solved.layers, layer), made=(*solved.made, made))

    def _told(self, solved: Solved, found: Instruction) -> Solved:
        """With an instruction that makes no layer in the history. It is as old as what lies below it, so that a build
        that finds all of its steps done makes the same image again."""
        if solved.made:
            at_ns = solved.made[-1].created_at_ns
        else:
            at_ns = solved.base.created_at_ns if solved.base is not None else self._tools.clock.now_ns()
        text = " ".join((found.keyword, *found.flags, found.text))
        made = Making(text, self._time(at_ns), empty=True, comment="shoal")
        return msgspec.structs.replace(solved, made=(*solved.made, made))

    def _time(self, at_ns: int) -> int:
        return at_ns if self._job.epoch is None else min(at_ns, self._job.epoch * 10**9)


class _Titles:
    """How the steps of a stage are called: `[build 2/5] RUN make`."""

    def __init__(self, stage: Stage, *, several: bool) -> None:
        self._name = f"{stage.title} " if several else ""
        self._count = sum(each.keyword in _MAKERS for each in stage.body) + 1
        self._number = 0 if isinstance(stage.base, str) and stage.base.lower() != SCRATCH else 1
        if self._number and not isinstance(stage.base, int):
            self._count, self._number = self._count - 1, 0

    def expect(self, triggers: Sequence[Instruction]) -> None:
        """What the stage's base adds to it."""
        self._count += sum(each.keyword in _MAKERS for each in triggers)

    def next(self, text: str) -> str:
        self._number += 1
        count = max(self._count, self._number)
        return f"[{self._name}{self._number:>{len(str(count))}}/{count}] {' '.join(text.split())}"


def check_platform(text: str) -> None:
    """Raises Unsupported for one that this host cannot run."""
    here = platforms.host()
    if not here.accepts(platforms.parse(text)):
        raise Unsupported(
            f"this host is {here} and cannot build for {text}", hint="build on a host of that kind: --node NAME"
        )


def config_of(solved: Solved, labels: dict[str, str]) -> ImageConfig:
    """The image's, with the user's `--label`."""
    config = solved.state.config
    return msgspec.structs.replace(config, labels={**config.labels, **labels}) if labels else config
