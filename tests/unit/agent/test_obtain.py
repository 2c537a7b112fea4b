"""Obtain: a task's image comes from another node, whether or not the manager knew its digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from agent.obtain import Obtain
from agent.session import Source
from shoal.errors import NotFound
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

    async def pull(self, reference: str) -> None:
        raise NotFound(f"no registry for {reference}")


class Cluster:
    """One other node holds web:1."""

    async def locate(self, reference: str, digest: str) -> list[Source]:
        return [OTHER] if digest == DIGEST or (not digest and reference == "docker.io/library/web:1") else []

    @asynccontextmanager
    async def dial(self, sources: Sequence[Source]) -> AsyncIterator[Sequence[Source]]:
        yield sources


@pytest.mark.parametrize("digest", ["", DIGEST])
async def test_an_image_comes_from_the_node_that_holds_it(digest: str) -> None:
    obtain = Obtain(Images(), locate=Cluster().locate, dial=Cluster().dial)
    spec = TaskSpec(container=msgspec.structs.replace(ContainerSpec(), image="web:1"))
    assert await obtain(Template("s", 1, spec=spec, image_digest=digest)) == f"web@{DIGEST}"
