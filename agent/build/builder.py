"""Builder: what the API calls. One per agent; builds run side by side and share what they found out.

    build/cache       what steps came to (`cache`)
    build/context/    the files of contexts (`context`)
    build/mounts/     what cache mounts keep (`cachemount`)

Secrets are below the run folder, which is in memory. What an interrupted agent left is swept by `open`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping

import msgspec

from agent.build import carried, kept, parser, platform, published, transfer
from agent.build.cache import Cache, Entry
from agent.build.cachemount import CacheMounts
from agent.build.carried import Carrier
from agent.build.context import Contexts
from agent.build.graph import graph
from agent.build.job import Bring, Job, Output, Solved, Tools, nowhere
from agent.build.kept import Kept, Pruned
from agent.build.parser import Dockerfile, DockerfileError
from agent.build.report import Left, Reporter, Shown, Tell, excerpt
from agent.build.run import Runner, environment
from agent.build.solver import Solver, StepFailed, check_platform, config_of
from agent.build.state import run_environment
from agent.build.step import CommandFailed
from agent.image import change
from agent.image import platform as platforms
from agent.image.catalog import Layer
from agent.image.document import Document
from agent.image.fresh import document_of
from agent.image.images import Images
from agent.network.networks import Networks
from agent.runtime.runtime import Runtime
from shoal.clock import Clock
from shoal.errors import TREE, InvalidArgument, ShoalError
from shoal.model.health import HealthCheck
from shoal.settings import Paths

log = logging.getLogger(__name__)


class Builder:
    """Made by `open`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._running: set[str] = set()

    @classmethod
    async def open(
        cls,
        paths: Paths,
        *,
        images: Images,
        runtime: Runtime,
        networks: Networks,
        clock: Clock,
        bring: Bring = nowhere,
    ) -> Builder:
        """After the containers are: what an interrupted build still ran has ended then."""
        folder, secret = paths.data / "build", paths.run / "build"

        def prepare() -> tuple[Contexts, CacheMounts, Runner]:
            shutil.rmtree(secret, ignore_errors=True)
            secret.mkdir(parents=True, exist_ok=True, mode=0o700)
            images.fresh.sweep()
            runner = Runner(runtime, networks, paths.containers)
            return Contexts(folder / "context"), CacheMounts(folder / "mounts"), runner

        contexts, mounts, runner = await asyncio.to_thread(prepare)
        cache = await asyncio.to_thread(Cache, folder / "cache", images)
        return cls(Tools(images, cache, contexts, runner, clock, mounts, secret, bring))

    @property
    def contexts(self) -> Contexts:
        """Where the files of a context go before its build."""
        return self._tools.contexts

    async def build(self, job: Job, tell: Tell) -> str:
        """The image's id, empty where none is made. Raises ShoalError in docker's words; before that, the lines that
        are to blame are told."""
        reporter = Reporter(tell, self._tools.clock)
        try:
            async with self._tools.images.working():
                try:
                    solved = await self._solved(job, reporter)
                    return await self._delivered(job, solved, reporter)
                finally:
                    await self._tools.cache.settle(now_ns=self._tools.clock.now_ns())
        except DockerfileError as error:
            await tell(Shown(excerpt(job.dockerfile, job.name, error.first, error.last)))
            message = f"dockerfile parse error on line {error.first}: {error.message}"
            raise InvalidArgument(message, hint=error.hint) from error
        except StepFailed as failed:
            await tell(Shown(excerpt(job.dockerfile, job.name, failed.found.first, failed.found.last)))
            kind = TREE.get(type(failed.error).__name__, ShoalError)
            raise kind(f"failed to solve: {failed.error.message}", hint=failed.error.hint) from failed

    async def _delivered(self, job: Job, solved: Solved, reporter: Reporter) -> str:
        if job.output is Output.NOTHING:
            return ""
        if job.output is Output.FILES:
            async with reporter.step("exporting files"):
                await self._files(job, solved)
            return ""
        if job.output is Output.ARCHIVE:
            async with reporter.step("exporting to an archive"):
                pieces, image_id = await self._tools.images.workbench.archived(
                    self._document(job, solved), solved.layers, job.tags
                )
                async for piece in pieces:
                    await job.take(piece)
            return image_id
        async with reporter.step("exporting to image") as handle:
            image_id = await self._tools.images.workbench.built(self._document(job, solved), solved.layers, job.tags)
            told = [f"writing image {image_id}", *(f"naming to {tag.canonical}" for tag in job.tags)]
            await handle.write(1, "".join(f"{line}\n" for line in told).encode())
        return image_id

    async def _files(self, job: Job, solved: Solved) -> None:
        fresh = self._tools.images.fresh
        async with fresh.placing(()) as aside:
            folders = fresh.folders(solved.below) or (str(aside.upper),)
            async for chunk in transfer.exported(folders, str(aside.mount)):
                await job.take(chunk)

    async def _solved(self, job: Job, reporter: Reporter) -> Solved:
        try:
            return await self._solve(job, reporter)
        except StepFailed as failed:
            if isinstance(failed.error, CommandFailed) and failed.error.layer and failed.solved:
                await reporter.tell(Left(await self._left(job, failed.solved, failed.error.layer)))
            raise

    async def _left(self, job: Job, solved: Solved, layer: Layer) -> str:
        """The image of what a command wrote before it failed, with its shell to look around in."""
        state = solved.state
        shell = (state.config.shell or change.SHELL)[:1]
        env = environment(state.config.env, run_environment(state, job.arguments))
        config = msgspec.structs.replace(state.config, cmd=shell, entrypoint=(), env=env, health=HealthCheck())
        state = msgspec.structs.replace(state, config=config)
        solved = msgspec.structs.replace(solved, state=state, layers=(*solved.layers, layer))
        return await self._tools.images.workbench.built(self._document(job, solved), solved.layers, ())

    async def _solve(self, job: Job, reporter: Reporter) -> Solved:
        if job.platform:
            check_platform(job.platform)
        dockerfile = parser.parse(job.dockerfile)
        found = graph(
            dockerfile, target=job.target, given=job.arguments, predefined=platform.arguments(platforms.host(), job)
        )
        async with published.imported(job, self._tools, reporter) as caches:
            job = msgspec.structs.replace(job, carried=(*job.carried, *caches))
            solver = Solver(job, dockerfile, found, self._tools, reporter)
            solved = await solver.solve()
        await self._warn(job, dockerfile, reporter)
        return await self._cached(job, solved, solver.came_to, reporter)

    async def _cached(self, job: Job, solved: Solved, came_to: Mapping[str, Entry], reporter: Reporter) -> Solved:
        """With what steps came to kept where the job wants it."""
        least = {key: each for key, each in came_to.items() if each.layer in solved.layers}
        if job.carrier is not None:
            async with reporter.step("exporting cache"):
                await self._carry(job.carrier, came_to if job.carrier.all else least)
        if job.cache_to is not None:
            await published.export(job, self._tools, reporter, came_to if job.cache_to.all else least)
        if job.inline:
            return msgspec.structs.replace(solved, cached=published.inline(least, solved.layers))
        return solved

    async def _carry(self, carrier: Carrier, chosen: Mapping[str, Entry]) -> None:
        """What steps came to, with the layers that the client does not have."""
        await carrier.take_list(carried.write(chosen))
        sent = set(carrier.held)
        for each in chosen.values():
            if each.layer.digest in sent:
                continue
            sent.add(each.layer.digest)
            async for piece in self._tools.images.workbench.blob(each.layer):
                await carrier.take_blob(each.layer.digest, piece)
            await carrier.take_blob(each.layer.digest, b"")

    async def _warn(self, job: Job, dockerfile: Dockerfile, reporter: Reporter) -> None:
        """Of arguments that no ARG asks for."""
        asked = {
            word.partition("=")[0] for each in dockerfile.instructions if each.keyword == "ARG" for word in each.words
        }
        unused = sorted(set(job.arguments) - asked - platform.PREDEFINED)
        if unused:
            async with reporter.step("checking build arguments") as handle:
                await handle.write(2, f"[Warning] One or more build-args {unused} were not consumed\n".encode())

    def _document(self, job: Job, solved: Solved) -> Document:
        return document_of(
            solved.base,
            platform=platforms.host(),
            config=config_of(solved, job.labels),
            author=solved.state.author,
            layers=solved.layers,
            made=solved.made,
            cached=solved.cached,
        )

    async def usage(self) -> list[Kept]:
        """What builds left, the last used first."""
        return await kept.usage(self._tools)

    async def prune(self, *, unused_s: int) -> Pruned:
        """Forget what was not used for so long."""
        return await kept.prune(self._tools, unused_s=unused_s)
