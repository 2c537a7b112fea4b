"""Obtain: a task's image comes from another node, whether or not the manager knew its digest, and whether or not that
node is there yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from agent.image.source import Progress, Report
from agent.located import Located, Source
from agent.obtain import ON_THE_WAY_S, PATIENCE_S, Obtain
from agent.registry.auth import Credentials
from shoal.clock import ManualClock
from shoal.errors import DeadlineExceeded, NotFound, ShoalError, Unavailable
from shoal.model.assignment import Template
from shoal.model.container import ContainerSpec
from shoal.model.image import Image
from shoal.model.service import TaskSpec

DIGEST = "sha256:" + "1" * 64
OTHER = Source("n1", "10.9.0.1:2376", DIGEST)


class Images:
    """As a node without any: what is fetched has no name but its digest."""

    def __init__(self) -> None:
        self.there: dict[str, Image] = {}

    async def get(self, reference: str) -> Image:
        if reference not in self.there:
            raise NotFound(f"No such image: {reference}")
        return self.there[reference]

    async def fetch(self, reference: str, manifest_digest: str, sources: Sequence[Source]) -> None:
        assert list(sources) == [OTHER]
        self.there[f"{reference.partition(':')[0]}@{manifest_digest}"] = Image(manifest_digest=manifest_digest)

    async def pull(self, reference: str, *, credentials: Credentials | None, progress: Report) -> None:
        raise NotFound(f"no registry for {reference}")


class Cluster:
    """One other node holds web:1; what is asked first is answered by `refusals`."""

    def __init__(self, *refusals: ShoalError) -> None:
        self.refusals = list(refusals)
        self.asked = 0

    async def locate(
        self, reference: str, manifest_digest: str, service_id: str = "", *, failed: bool = False
    ) -> Located:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        known = manifest_digest == DIGEST or (not manifest_digest and reference == "docker.io/library/web:1")
        return Located((OTHER,) if known else ())

    @asynccontextmanager
    async def dial(self, sources: Sequence[Source]) -> AsyncIterator[Sequence[Source]]:
        yield sources


AWAY = (Unavailable("no manager is connected"), Unavailable("1 of 3 nodes have not said"), DeadlineExceeded("busy"))


def obtaining(cluster: Cluster, clock: ManualClock) -> Obtain[Source]:
    return Obtain(Images(), locate=cluster.locate, dial=cluster.dial, clock=clock)


def template(image: str = "web:1", *, digest: str = "") -> Template:
    return Template("s", 1, spec=TaskSpec(container=ContainerSpec(image=image)), image_digest=digest)


@pytest.mark.parametrize("digest", ["", DIGEST])
async def test_an_image_comes_from_the_node_that_holds_it(digest: str) -> None:
    assert await obtaining(Cluster(), ManualClock())(template(digest=digest)) == f"web@{DIGEST}"


async def test_a_task_waits_for_nodes_that_may_have_its_image() -> None:
    cluster, clock = Cluster(*AWAY), ManualClock()
    wanted = asyncio.create_task(obtaining(cluster, clock)(template()))
    await clock.advance(PATIENCE_S / 2)
    assert (await wanted, cluster.asked) == (f"web@{DIGEST}", len(AWAY) + 1)


async def test_a_task_does_not_wait_for_ever() -> None:
    cluster, clock = Cluster(*AWAY * 100), ManualClock()
    wanted = [asyncio.create_task(obtaining(cluster, clock)(template())) for _ in range(3)]
    await clock.advance(PATIENCE_S - 1)
    assert not any(each.done() for each in wanted)
    await clock.advance(6)
    for each in wanted:
        with pytest.raises(NotFound, match=r"No such image: web:1: no image web:1 on this node; .*; no registry"):
            await each


@pytest.mark.parametrize("refusals", [(), (NotFound("no other node has it"),)])
async def test_an_image_that_is_nowhere_fails_at_once(refusals: tuple[ShoalError, ...]) -> None:
    cluster = Cluster(*refusals)
    with pytest.raises(NotFound, match="no other node has it; no registry for none:1"):
        await obtaining(cluster, ManualClock())(template("none:1"))
    assert cluster.asked == 1


class Sent(Images):
    """As a node that a registry gives images to, piece by piece."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken
        self.shown: Credentials | None = None
        self.report: Report = lambda _: None
        self.come = asyncio.Event()

    async def pull(self, reference: str, *, credentials: Credentials | None, progress: Report) -> None:
        self.shown, self.report = credentials, progress
        await self.come.wait()
        if self.broken:
            raise Unavailable("the registry is away")
        self.there[reference] = Image(manifest_digest=DIGEST)


class Sender(Cluster):
    """Nobody holds the image. The answers come in turn, the last for ever."""

    def __init__(self, *answers: Located) -> None:
        super().__init__()
        self.answers = list(answers)
        self.failed = 0

    async def locate(
        self, reference: str, manifest_digest: str, service_id: str = "", *, failed: bool = False
    ) -> Located:
        assert service_id == "s"
        if failed:
            self.failed += 1
            return Located()
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


ME = Credentials("me", "secret")


async def test_who_is_sent_brings_it_and_says_so_while_bytes_come() -> None:
    cluster, images, clock = Sender(Located(bring=True, credentials=ME)), Sent(), ManualClock()
    obtain = Obtain(images, locate=cluster.locate, dial=cluster.dial, clock=clock)
    wanted = asyncio.create_task(obtain(template("reg.example/web:1", digest=DIGEST)))
    await clock.advance(ON_THE_WAY_S + 1)
    assert (images.shown, cluster.asked) == (ME, 1)  # nothing has come: others need not wait for this one
    images.report(Progress("layer", "Downloading", 1, 2))
    await clock.advance(ON_THE_WAY_S + 1)
    assert cluster.asked == 2
    images.come.set()
    assert await wanted == f"reg.example/web@{DIGEST}"
    assert cluster.failed == 0


async def test_who_cannot_bring_it_lets_another_go() -> None:
    cluster, images = Sender(Located(bring=True)), Sent(broken=True)
    images.come.set()
    with pytest.raises(NotFound, match="the registry is away"):
        await Obtain(images, locate=cluster.locate, dial=cluster.dial, clock=ManualClock())(template("reg.example/a:1"))
    assert cluster.failed == 1


async def test_who_is_not_sent_waits_as_long_as_it_comes() -> None:
    cluster, clock = Sender(*[Located(coming=True)] * 60, Located((OTHER,))), ManualClock()
    images = Sent()
    obtain = Obtain(images, locate=cluster.locate, dial=cluster.dial, clock=clock)
    wanted = asyncio.create_task(obtain(template(digest=DIGEST)))
    await clock.advance(PATIENCE_S * 3)
    assert await wanted == f"web@{DIGEST}"
    assert images.shown is None
