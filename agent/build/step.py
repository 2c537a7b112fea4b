"""One instruction's work on files: its key, the layer that an earlier build made for it, or a new one.

`Steps` says what a step is; how files get where they belong is `transfer`'s, how a command runs `run`'s, what is
mounted for it `mounting`'s.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from agent.build import cachekey, flags, transfer
from agent.build.adding import Adder
from agent.build.cache import Entry
from agent.build.copying import Copying, copying_of, order_of
from agent.build.flags import Network
from agent.build.gatherer import Wish
from agent.build.job import Job, Solved, Tools
from agent.build.mounting import SCRIPT, Mounting, shown_digest
from agent.build.parser import Heredoc, Instruction
from agent.build.report import Handle
from agent.build.run import Command, environment
from agent.build.state import run_environment
from agent.build.tree import Entry as File
from agent.build.tree import Source, content_digest
from agent.container.launch import user_in
from agent.container.rootview import RootView
from agent.image import change, words
from agent.image.catalog import Layer
from agent.image.layer import Place
from shoal import digest as digests
from shoal.errors import Exhausted, InvalidArgument, ShoalError

log = logging.getLogger(__name__)

# (layer, when it was made, the line of the image's history)
Made = tuple[Layer, int, str]
LayersOf = Callable[[str, int], Awaitable[Solved]]


class Stepping(msgspec.Struct, frozen=True):
    """One step: what it stands on, what it is, the number of its stage, and who hears of it. `anew`: whatever earlier
    builds came to."""

    solved: Solved
    found: Instruction
    stage: int
    handle: Handle
    anew: bool

    @property
    def whole(self) -> Callable[[str], str]:
        return self.solved.state.scope.whole


class CommandFailed(ShoalError):
    """`layer` has what the command wrote, where somebody wants to look into it."""

    layer: Layer | None = None


class Steps:
    """`layers_of` tells what `--from` means."""

    def __init__(self, job: Job, tools: Tools, layers_of: LayersOf) -> None:
        self._job = job
        self._tools = tools
        self._layers_of = layers_of
        # What this build came to, by key.
        self.came_to: dict[str, Entry] = {}
        self._mounting = Mounting(job, tools, layers_of)
        self._adder = Adder(tools)

    async def make(self, stepping: Stepping) -> Made:
        """Raises ShoalError for what goes wrong; nothing of the step is left then."""
        keyword = stepping.found.keyword
        if keyword == "RUN":
            return await self._run(stepping)
        if keyword == "WORKDIR":
            return await self._workdir(stepping)
        copying = copying_of(
            stepping.found, stepping.solved.state, folders=self._tools.images.fresh.folders(stepping.solved.below)
        )
        if keyword == "COPY" and copying.given.origin:
            return await self._copy_from(stepping, copying)
        return await self._copy(stepping, copying)

    def is_folder(self, solved: Solved) -> bool:
        """Whether the working directory is there."""
        if not solved.layers:
            return solved.state.config.workdir == "/"
        with (
            RootView(self._tools.images.fresh.folders(solved.below)) as view,
            view.folder(solved.state.config.workdir) as found,
        ):
            return found is not None

    # ---- kinds of steps -----------------------------------------------------------------------------

    async def _workdir(self, stepping: Stepping) -> Made:
        config = stepping.solved.state.config
        owner = (0, 0)
        if config.user and stepping.solved.layers:
            user = user_in(self._tools.images.fresh.folders(stepping.solved.below), config.user, ())
            owner = (user.uid, user.gid)

        async def work(place: Place) -> None:
            order = transfer.order_of(place, config.workdir, several=True, owner=owner)
            await asyncio.to_thread(transfer.place_archive, order, (bytes(1024),))

        key = cachekey.key_of("workdir", stepping.solved.below, config.workdir, owner)
        return await self._made(stepping, key, work, f"WORKDIR {config.workdir}")

    async def _run(self, stepping: Stepping) -> Made:
        found, state = stepping.found, stepping.solved.state
        given = flags.run_flags(found, stepping.whole)
        argv, script = _argv(found, state.config.shell or change.SHELL)
        more = run_environment(state, self._job.arguments)
        setting = self._job.setting
        if given.network is not None and setting.network != Network.NONE:
            setting = msgspec.structs.replace(setting, network=given.network)
        shown = [
            (mount, await shown_digest(mount, self._job, self._tools, self._layers_of, stepping.stage))
            for mount in given.mounts
        ]
        key = cachekey.run_key(
            stepping.solved.below,
            argv=(*argv, script),
            environment={**more, **change.environment(state.config)},
            workdir=state.config.workdir,
            user=state.config.user,
            place=(setting.network.value, setting.hosts, setting.shm_size_bytes, setting.ulimits),
            mounts=shown,
        )

        async def work(place: Place) -> None:
            async with self._mounting.mounted(given.mounts, script, place, stepping.stage) as (mounts, secrets):
                command = Command(
                    argv=argv,
                    env=environment(state.config.env, {**more, **secrets}),
                    workdir=state.config.workdir,
                    user=state.config.user,
                    setting=setting,
                    mounts=mounts,
                )
                lower = self._tools.images.fresh.folders(stepping.solved.below)
                code = await self._tools.runner.run(command, place, lower, stepping.handle.write)
            if code:
                line = " ".join(argv)
                raise CommandFailed(
                    f'process "{line[:500]}" did not complete successfully: exit code: {code}',
                    hint="" if self._job.debug else "with --debug-shell the build opens a shell where it failed",
                )

        return await self._made(stepping, key, work, _history(argv, more))

    async def _copy_from(self, stepping: Stepping, copying: Copying) -> Made:
        """From another stage or image: two such steps are the same when the files are, whoever made them."""
        origin = await self._layers_of(copying.given.origin, stepping.stage)
        wanted = (copying.sources, copying.given.exclude, copying.given.parents)
        memo = cachekey.key_of("gather", origin.below, *wanted)
        content = self._tools.cache.digests.get(memo)
        if content is None:
            async with self._tools.images.fresh.placing(()) as place:
                content = await asyncio.to_thread(transfer.gathered_digest, self._wish(origin, copying, place))
            self._tools.cache.remember(memo, content)

        async def work(place: Place) -> None:
            async with self._tools.images.fresh.placing(()) as aside:
                order = order_of(place, copying, several=len(copying.sources) > 1)
                await asyncio.to_thread(transfer.place_gathered, order, self._wish(origin, copying, aside))

        key = cachekey.key_of("copy", stepping.solved.below, copying.parts, content)
        return await self._made(stepping, key, work, _copy_history(stepping, copying))

    def _wish(self, origin: Solved, copying: Copying, aside: Place) -> Wish:
        folders = self._tools.images.fresh.folders(origin.below) or (str(aside.upper),)
        given = copying.given
        return transfer.wish_of(folders, str(aside.mount), copying.sources, given.exclude, parents=given.parents)

    async def _copy(self, stepping: Stepping, copying: Copying) -> Made:
        """From the context, from lines of the Dockerfile, and for ADD from elsewhere."""
        given = copying.given
        sources: list[Source] = []
        works: list[tuple[str, Callable[[Place], Awaitable[None]]]] = []
        for wanted in copying.sources:
            if stepping.found.keyword == "ADD":
                added = await self._adder.add(wanted, self._job.tree, given)
                if added is not None:
                    works.append((added.digest, partial(added.work, copying)))
                    continue
            sources += self._job.tree.sources(wanted, exclude=given.exclude, parents=given.parents)
        for heredoc in copying.heredocs:
            sources.append(await self._heredoc(heredoc, stepping))
        several = len(copying.sources) + len(copying.heredocs) > 1 or len(sources) > 1
        if several and not copying.target.endswith("/"):
            raise InvalidArgument(
                f"When using {stepping.found.keyword} with more than one source file, "
                "the destination must be a directory and end with a /"
            )

        async def work(place: Place) -> None:
            if sources:
                files = str(self._tools.contexts.files)
                order = order_of(place, copying, several=several, files=files)
                await asyncio.to_thread(transfer.place_files, order, sources)
            for _, each in works:
                await each(place)

        content = (content_digest(sources), [digest for digest, _ in works])
        key = cachekey.key_of("copy", stepping.solved.below, copying.parts, several, content)
        return await self._made(stepping, key, work, _copy_history(stepping, copying))

    async def _heredoc(self, heredoc: Heredoc, stepping: Stepping) -> Source:
        text = (
            words.expand_lines(heredoc.content, stepping.solved.state.variables) if heredoc.expand else heredoc.content
        )
        data = text.encode(errors="surrogateescape")
        self._tools.contexts.also([digests.of(data)])
        digest = await asyncio.to_thread(self._tools.contexts.store, data)
        now_ns = self._tools.clock.now_ns()
        return Source(False, (File(heredoc.name, stat.S_IFREG | 0o644, len(data), now_ns, digest),))

    # ---- the way of all of them ---------------------------------------------------------------------

    async def _made(
        self, stepping: Stepping, key: str, work: Callable[[Place], Awaitable[None]], created_by: str
    ) -> Made:
        """The layer of a step, by its key from an earlier build, or by `work`."""
        cache, fresh, clock = self._tools.cache, self._tools.images.fresh, self._tools.clock
        key = cachekey.key_of("at", (key,), self._job.epoch)
        async with cache.alone(key):
            below = stepping.solved.below
            known = None
            if not stepping.anew:
                known = cache.get(key, now_ns=clock.now_ns()) or await self._came(key, below)
            if known is not None:
                stepping.handle.cached = True
                self.came_to[key] = known
                return known.layer, known.made_at_ns, created_by
            async with fresh.placing(below) as place:
                try:
                    await work(place)
                except CommandFailed as failed:
                    if self._job.debug:
                        failed.layer = await fresh.keep(place, below, epoch=None)
                    raise
                layer = await fresh.keep(place, below, epoch=self._job.epoch)
            now_ns = clock.now_ns()
            entry = self.came_to[key] = Entry(layer, stepping.found.original[:200], now_ns, now_ns)
            cache.put(key, entry)
            return layer, now_ns, created_by

    async def _came(self, key: str, below: Sequence[str]) -> Entry | None:
        """What another host's build came to, its layer brought here; None where that is not known, or not to be had:
        then the step is done."""
        for carried in self._job.carried:
            if (step := carried.steps.get(key)) is None:
                continue
            try:
                layer = await self._tools.images.fresh.receive(step.layer, below, carried.sources)
            except Exhausted:
                raise
            except ShoalError as error:
                log.warning("the cache's layer of %r is of no use: %s", step.title, error)
                continue
            entry = Entry(layer, step.title, step.made_at_ns, self._tools.clock.now_ns())
            self._tools.cache.put(key, entry)
            return entry
        return None


def _argv(found: Instruction, shell: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """What is run, and the text of a script that is to be there for it."""
    if found.argv is not None:
        if not found.argv:
            raise InvalidArgument("RUN requires at least one argument")
        return found.argv, ""
    if not found.text:
        raise InvalidArgument("RUN requires at least one argument")
    if not found.heredocs:
        return (*shell, found.text), ""
    first = found.heredocs[0]
    if len(found.heredocs) == 1 and len(found.words) == 1:  # nothing but the lines themselves
        if first.content.startswith("#!"):
            return (SCRIPT,), first.content
        return (*shell, first.content), ""
    body = "".join(f"{each.content}{each.name}\n" for each in found.heredocs)
    return (*shell, f"{found.text}\n{body}"), ""


def _history(argv: tuple[str, ...], more: dict[str, str]) -> str:
    told = [f"{name}={value}" for name, value in sorted(more.items())]
    prefix = f"|{len(told)} {' '.join(told)} " if told else ""
    return f"RUN {prefix}{' '.join(argv)} # shoal"


def _copy_history(stepping: Stepping, copying: Copying) -> str:
    sources = [*copying.sources, *(f"<<{each.name}" for each in copying.heredocs)]
    return " ".join((stepping.found.keyword, *stepping.found.flags, *sources, copying.target, "# shoal"))
