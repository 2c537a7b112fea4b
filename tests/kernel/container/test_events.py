"""What `events` tells of a container's life, and of what is around it."""

import asyncio
import json
import re

import pytest

from agent.container.exec import ExecRequest
from shoal.model.container import Mount
from shoal.model.network import NetworkAttachment, NetworkSpec

pytestmark = pytest.mark.kernel


async def told(engine):
    """Everything so far."""
    following = engine.chronicle.follow(since_ns=1)
    return [(each.kind.name.lower(), each.action) for each in await anext(following)]


async def test_a_life_is_told_in_its_order(engine):
    await engine.networks.create(NetworkSpec(name="net"))
    attachments = (NetworkAttachment(network="net"),)
    await engine.run("sleep", "100", name="web", networks=attachments, mounts=(Mount(source="vol", target="/d"),))
    streams = await engine.containers.visits.exec("web", ExecRequest(argv=("true",)))
    await streams.wait()
    await streams.close()
    await engine.containers.pause("web")
    await engine.containers.resume("web")
    await engine.containers.rename("web", "site")
    await engine.containers.restart("site", timeout_s=0)
    await engine.containers.stop("site", timeout_s=0)
    await engine.containers.remove("site")
    await engine.volumes.remove("vol")
    await engine.networks.remove("net")
    assert await told(engine) == [
        ("image", "import"),
        ("network", "create"),
        ("volume", "create"),
        ("container", "create"),
        ("network", "connect"),
        ("container", "start"),
        ("container", "exec_create: true"),
        ("container", "exec_start: true"),
        ("container", "pause"),
        ("container", "unpause"),
        ("container", "rename"),
        ("container", "kill"),
        ("container", "die"),
        ("network", "disconnect"),
        ("container", "stop"),
        ("network", "connect"),
        ("container", "start"),
        ("container", "restart"),
        ("container", "kill"),
        ("container", "die"),
        ("network", "disconnect"),
        ("container", "stop"),
        ("container", "destroy"),
        ("volume", "destroy"),
        ("network", "destroy"),
    ]


async def test_events_on_the_command_line(engine, shell):
    container = await engine.run("sh", "-c", "exit 3", name="web", labels={"tier": "front"})
    await engine.containers.wait("web")
    ran = await shell("events", "--since", "1h", "--until", "0s", "--filter", "event=die")
    [line] = ran.text.splitlines()
    told = rf" container die {container.meta.id} \(execDuration=\d+, exitCode=3, image=busybox, name=web, tier=front\)"
    assert re.search(told, line), line
    shown = await shell("events", "--until", "0s", "--filter", "container=web", "--format", "{{json .}}")
    first = json.loads(shown.text.splitlines()[0])
    assert (first["Type"], first["Action"], first["status"], first["from"]) == (
        "container",
        "create",
        "create",
        "busybox",
    )
    assert first["Actor"] == {
        "ID": container.meta.id,
        "Attributes": {"image": "busybox", "name": "web", "tier": "front"},
    }
    odd = await shell("events", "--until", "0s", "--filter", "odd=1")  # docker shows nothing, and does not say why
    assert (odd.code, "no 'odd' to filter by" in odd.err) == (0, True)


async def test_events_are_followed_until_somebody_has_enough(engine, shell):
    process = await shell.start("events", "--format", "{{.Action}}", "--filter", "type=container")
    await asyncio.wait_for(_listened_to(engine), 60)
    await engine.run("true", name="web", start=False)
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"create\n"
    process.kill()
    await process.wait()


async def _listened_to(engine):
    while not engine.chronicle.listeners:
        await asyncio.sleep(0.01)


async def test_events_outlive_the_agent(engine):
    await engine.run("true", name="job")
    await engine.containers.wait("job")
    await engine.restart()
    actions = [action for kind, action in await told(engine) if kind == "container"]
    assert actions == ["create", "start", "die"]
