"""Containers that crun and runc run: chosen by name, with all that people do to a container, over an agent's death."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from agent.container.exec import ExecRequest
from shoal.errors import InvalidArgument
from shoal.model.base import Resources
from shoal.model.container import ContainerState
from tests.kernel.container.conftest import drained

INSTALLED = [name for name in ("crun", "runc") if shutil.which(name)]
pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not INSTALLED, reason="neither crun nor runc is installed")]


@pytest.mark.parametrize("runtime", INSTALLED)
async def test_a_container_of_another_runtime_does_what_ours_do(engine, runtime):
    code, out, err = await engine.output("sh", "-c", "hostname; echo err >&2; exit 3", runtime=runtime, hostname="here")
    assert (code, out, err) == (3, b"here\n", b"err\n")
    script = "trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"
    container = await engine.run(
        "sh", "-c", script, name="cc", runtime=runtime, limits=Resources(memory_bytes=64 << 20)
    )
    assert container.spec.runtime == runtime
    streams = await engine.containers.visits.exec("cc", ExecRequest(argv=("sh", "-c", "cat /proc/1/comm; exit 9")))
    assert await drained(streams) == (9, b"sh\n", b"")
    await engine.containers.pause("cc")
    assert engine.containers.get("cc").status.state == ContainerState.PAUSED
    await engine.containers.resume("cc")
    await engine.containers.stop("cc", timeout_s=20)
    assert engine.containers.get("cc").status.exit_code == 6
    await engine.containers.start("cc")
    await engine.containers.remove("cc", force=True)


@pytest.mark.parametrize("runtime", INSTALLED)
async def test_it_outlives_agent_and_keeper(engine, runtime):
    container = await engine.run("sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done", runtime=runtime)
    keeper = int(Path(f"/proc/{container.status.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    await engine.restart()
    again = engine.containers.get(container.meta.id)
    assert (again.status.state, again.status.pid) == (ContainerState.RUNNING, container.status.pid)
    await engine.containers.stop(container.meta.id, timeout_s=20)
    assert engine.containers.get(container.meta.id).status.exit_code == 6


async def test_a_runtime_that_is_not_there_is_refused_as_docker_does(engine):
    with pytest.raises(InvalidArgument, match="unknown or invalid runtime name: nosuch"):
        await engine.run("true", runtime="nosuch", start=False)


async def test_the_command_line_names_shows_and_lists_runtimes(engine, shell):
    ran = await shell("run", "--runtime", INSTALLED[0], "--name", "cc", "busybox", "sh", "-c", "exit 4")
    assert ran.code == 4
    [shown] = json.loads((await shell("inspect", "cc")).text)
    assert shown["HostConfig"]["Runtime"] == INSTALLED[0]
    await shell("create", "--name", "own", "busybox", "true")
    [shown] = json.loads((await shell("inspect", "own")).text)
    assert shown["HostConfig"]["Runtime"] == "shoal"
    refused = await shell("run", "--runtime", "nosuch", "busybox", "true")
    assert (refused.code, "unknown or invalid runtime name: nosuch" in refused.err) == (125, True)
    info = (await shell("info")).text
    assert f"Runtimes: {' '.join(sorted(['shoal', *INSTALLED]))}" in info
    assert "Default Runtime: shoal" in info
