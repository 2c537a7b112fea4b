"""`shoal build`, as a user types it: what comes out, what is told, and what is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agent.build.builder import Builder
from agent.build.job import Job
from agent.build.tree import Tree
from shoal.clock import SystemClock
from shoal.errors import ShoalError
from tests.kernel.container.conftest import Engine, Shell

pytestmark = pytest.mark.kernel


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


async def test_the_dockerfile_of_every_tutorial_builds_and_runs(engine: Engine, shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="""FROM busybox
COPY . /app
WORKDIR /app
RUN echo made > made && id -u
EXPOSE 8000
ENV GREETING="hello you"
CMD ["sh", "-c", "cat index made; echo $GREETING"]
""",
        index="index\n",
    )
    built = await shell("build", "-t", "app:1", str(folder))
    assert built.code == 0, built.err
    assert "#3 [3/4] WORKDIR /app\n#3 CACHED" in built.err
    assert "] RUN echo made > made && id -u\n" in built.err
    ran = await shell("run", "--rm", "app:1")
    assert ran.text == "index\nmade\nhello you\n", ran.err
    shown = json.loads((await shell("image", "inspect", "app:1")).text)[0]
    assert shown["Config"]["ExposedPorts"] == {"8000/tcp": {}}
    assert shown["Config"]["WorkingDir"] == "/app"
    again = await shell("build", "-q", "-t", "app:1", str(folder))
    assert (again.code, again.text.strip(), again.err) == (0, shown["Id"], "")


async def test_stages_run_side_by_side_and_only_those_that_are_needed(shell: Shell, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "app",
        Dockerfile="""ARG BASE=busybox
FROM $BASE AS one
ARG WORD=nothing
RUN echo $WORD > /one && ln -s one /link
FROM ${BASE} AS two
RUN mkdir -p /out/deep && echo two > /out/deep/two && chown 1000:1001 /out/deep/two
FROM busybox AS unneeded
RUN exit 7
FROM scratch
COPY --from=one /one /link /copied/
COPY --from=two --chown=3:4 /out /out/
COPY --from=1 /out/de*/t?o /kept
COPY --from=busybox /bin/busybox /bin/busybox
""",
    )
    built = await shell("build", "-t", "app", "--build-arg", "WORD=hello", str(folder))
    assert built.code == 0, built.err
    assert "unneeded" not in built.err
    # A step that waits for another stage has not begun.
    assert built.err.index("] COPY --from=two") > built.err.index("DONE", built.err.index("] RUN mkdir -p /out"))
    wanted = ("/copied/one", "/copied/link", "/out/deep/two", "/out/deep", "/kept")
    ran = await shell("run", "--rm", "app", "/bin/busybox", "stat", "-c", "%n %u:%g %F", *wanted)
    assert ran.text.splitlines() == [
        "/copied/one 0:0 regular file",
        "/copied/link 0:0 regular file",
        "/out/deep/two 3:4 regular file",
        "/out/deep 3:4 directory",
        "/kept 1000:1001 regular file",
    ], ran.err
    failed = await shell("build", "--target", "unneeded", str(folder))
    assert failed.code == 1
    assert failed.err.endswith(
        """Dockerfile:8
--------------------
   6 |     RUN mkdir -p /out/deep && echo two > /out/deep/two && chown 1000:1001 /out/deep/two
   7 |     FROM busybox AS unneeded
   8 | >>> RUN exit 7
   9 |     FROM scratch
  10 |     COPY --from=one /one /link /copied/
--------------------
Error: failed to solve: process "/bin/sh -c exit 7" did not complete successfully: exit code: 7; \
with --debug-shell the build opens a shell where it failed
"""
    )


async def test_a_base_that_only_another_node_has_comes_from_there(engine: Engine) -> None:
    """Its registry is not asked; with `--pull` it alone is."""
    asked = []

    async def bring(reference: str) -> str:
        asked.append(reference)
        await engine.images.tag("busybox", "brought:1")
        return "brought:1"

    builder = await Builder.open(
        engine.paths,
        images=engine.images,
        runtime=engine.runtime,
        networks=engine.networks,
        clock=SystemClock(),
        bring=bring,
    )
    job = Job("FROM 127.0.0.1:1/team/base:1\nENV A=b\n", "Dockerfile", Tree([]))

    async def tell(_: object) -> None: ...

    image = await engine.images.get(await builder.build(job, tell))
    assert (image.config.env[-1], asked) == ("A=b", ["127.0.0.1:1/team/base:1"])
    with pytest.raises(ShoalError, match="cannot reach registry"):
        await builder.build(msgspec.structs.replace(job, pull=True), tell)
