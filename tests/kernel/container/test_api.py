"""ContainerService and VolumeService as a client sees them, over a real socket."""

import asyncio

import pytest

from agent.api.container import ContainerService
from agent.api.volume import VolumeService
from shoal import rpc
from shoal.errors import CommandNotFound, Conflict, InvalidArgument, NotFound
from shoal.model.container import Mount
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import (
    ContainerServiceStub,
    VolumeServiceStub,
    add_ContainerServiceServicer_to_server,
    add_VolumeServiceServicer_to_server,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
async def channel(engine, tmp_path):
    server = rpc.new_server()
    add_ContainerServiceServicer_to_server(ContainerService(engine.containers), server)
    add_VolumeServiceServicer_to_server(VolumeService(engine.volumes, engine.containers), server)
    target = f"unix:{tmp_path}/s"
    server.add_insecure_port(target)
    await server.start()
    async with rpc.dial(target) as dialed:
        yield dialed
    await server.stop(0)


@pytest.fixture
def containers(channel):
    return ContainerServiceStub(channel)


def wish(*args, **fields):
    spec = {key: fields.pop(key) for key in tuple(fields) if key in types_pb2.ContainerSpec.DESCRIPTOR.fields_by_name}
    return wire.CreateContainerRequest(spec=types_pb2.ContainerSpec(image="busybox", args=args, **spec), **fields)


async def created(containers, *args, **fields):
    return (await containers.CreateContainer(wish(*args, **fields))).id


async def test_a_whole_life(containers):
    made = await created(containers, "sleep", "100", name="web", labels={"a": "b"})
    with rpc.translated():
        await containers.StartContainer(wire.StartContainerRequest(container="web"))
        got = (await containers.GetContainer(wire.GetContainerRequest(container=made[:8]))).container
        assert (got.name, got.spec.labels, got.status.state) == (
            "web",
            {"a": "b"},
            types_pb2.CONTAINER_STATE_RUNNING,
        )
        listed = await containers.ListContainers(
            wire.ListContainersRequest(filters=[wire.Filter(key="label", value="a=b")])
        )
        assert [each.meta.id for each in listed.containers] == [made]
        await containers.StopContainer(wire.StopContainerRequest(container="web", timeout_s=0))
        ended = await containers.WaitContainer(wire.WaitContainerRequest(container="web"))
        assert ended.exit_code == 137
        await containers.RemoveContainer(wire.RemoveContainerRequest(container="web"))
    assert not (await containers.ListContainers(wire.ListContainersRequest(all=True))).containers


async def test_an_image_for_other_machines_comes_with_a_warning(engine, containers):
    await engine.add("mainframe", platform="linux/s390x")
    asked = wire.CreateContainerRequest(spec=types_pb2.ContainerSpec(image="mainframe", args=["true"]))
    (warning,) = (await containers.CreateContainer(asked)).warnings
    assert "platform (linux/s390x) does not match the detected host platform" in warning
    asked.platform = "linux/s390x"
    assert not (await containers.CreateContainer(asked)).warnings
    asked.spec.image, asked.platform = "busybox", ""
    assert not (await containers.CreateContainer(asked)).warnings


@pytest.mark.parametrize(
    ("call", "request_", "error", "said"),
    [
        ("GetContainer", wire.GetContainerRequest(container="x"), NotFound, "^No such container: x$"),
        ("StartContainer", wire.StartContainerRequest(container="x"), NotFound, "No such container: x"),
        ("KillContainer", wire.KillContainerRequest(container="idle"), Conflict, "is not running"),
        ("KillContainer", wire.KillContainerRequest(container="idle", signal="FOO"), InvalidArgument, "Invalid signal"),
        ("CreateContainer", wish("true", name="idle"), Conflict, "already in use"),
        ("CreateContainer", wish("true", name="-"), InvalidArgument, "Invalid container name"),
        ("WaitContainer", wire.WaitContainerRequest(container="idle", condition=9), InvalidArgument, "wait condition"),
        (
            "ListContainers",
            wire.ListContainersRequest(filters=[wire.Filter(key="odd")]),
            InvalidArgument,
            "invalid filter 'odd'",
        ),
    ],
)
async def test_refusals_reach_the_client_as_they_are(containers, call, request_, error, said):
    await created(containers, "true", name="idle")
    with pytest.raises(error, match=said), rpc.translated():
        await getattr(containers, call)(request_)


async def conversation(call, *requests):
    for each in requests:
        await call.write(each)
    await call.done_writing()
    return [each async for each in call]


def written(responses, kind="stdout"):
    return b"".join(getattr(each, kind) for each in responses if each.WhichOneof("response") == kind)


async def test_attach_starts_and_carries_both_ways(containers):
    await created(containers, "sh", "-c", "cat; echo err >&2; exit 3", name="cat", open_stdin=True)
    request = wire.AttachContainerRequest
    responses = await conversation(
        containers.AttachContainer(),
        request(open=wire.AttachOpen(container="cat", stdin=True, stdout=True, stderr=True, start=True)),
        request(stdin=b"hello\n"),
        request(stdin_close=True),
    )
    assert responses[0].ready
    assert written(responses) == b"hello\n"
    assert written(responses, "stderr") == b"err\n"
    assert responses[-1].exit.code == 3


async def test_attach_shows_only_what_is_asked_for(containers):
    await created(containers, "sh", "-c", "echo out; echo err >&2", name="both")
    opening = wire.AttachOpen(container="both", stderr=True, start=True)
    responses = await conversation(containers.AttachContainer(), wire.AttachContainerRequest(open=opening))
    assert [each.WhichOneof("response") for each in responses] == ["ready", "stderr", "exit"]


async def test_attach_to_a_command_that_is_not_there(containers):
    await created(containers, "nothere", name="bad")
    opening = wire.AttachOpen(container="bad", start=True)
    with pytest.raises(CommandNotFound), rpc.translated():
        await conversation(containers.AttachContainer(), wire.AttachContainerRequest(open=opening))


async def test_attach_carries_signals(containers):
    await created(containers, "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done", name="deaf")
    call = containers.AttachContainer()
    await call.write(wire.AttachContainerRequest(open=wire.AttachOpen(container="deaf", start=True)))
    async for response in call:
        if response.stdout == b"ready\n":
            await call.write(wire.AttachContainerRequest(signal="INT"))
    assert response.exit.code == 9


async def test_a_stream_that_begins_with_something_else(containers):
    with pytest.raises(InvalidArgument, match="must be `open`"), rpc.translated():
        await conversation(containers.ExecContainer(), wire.ExecContainerRequest(stdin=b"x"))


async def test_exec(containers, engine):
    await engine.run("sleep", "100", name="web")
    request = wire.ExecContainerRequest
    responses = await conversation(
        containers.ExecContainer(),
        request(open=wire.ExecOpen(container="web", argv=["sh", "-c", "cat; exit 5"], stdin=True)),
        request(stdin=b"in"),
        request(stdin_close=True),
    )
    assert responses[0].started > 0
    assert written(responses) == b"in"
    assert responses[-1].exit.code == 5


async def test_exec_detached_answers_at_once_and_runs_on(containers, engine):
    await engine.run("sleep", "100", name="web")
    opening = wire.ExecOpen(container="web", argv=["sh", "-c", "yes | head -c 300000; echo done > /done"], detach=True)
    responses = await conversation(containers.ExecContainer(), wire.ExecContainerRequest(open=opening))
    assert [each.WhichOneof("response") for each in responses] == ["started"]
    looking = wire.ExecOpen(container="web", argv=["sh", "-c", "until grep -s done /done; do sleep 0.05; done"])
    found = await asyncio.wait_for(
        conversation(containers.ExecContainer(), wire.ExecContainerRequest(open=looking)), 10
    )
    assert written(found) == b"done\n"


async def test_a_client_that_hangs_up_leaves_the_container(containers, engine):
    await created(containers, "sleep", "100", name="web")
    call = containers.AttachContainer()
    await call.write(wire.AttachContainerRequest(open=wire.AttachOpen(container="web", start=True)))
    assert (await call.read()).ready
    call.cancel()
    assert engine.containers.get("web").status.pid
    await engine.containers.remove("web", force=True)


async def test_logs(containers, engine):
    await engine.run("sh", "-c", "echo out; echo err >&2; echo last", name="talk")
    await engine.containers.wait("talk")

    async def read(**fields):
        call = containers.ReadLogs(wire.ReadLogsRequest(container="talk", **fields))
        return sorted([line.data async for response in call for line in response.lines])

    assert await read() == [b"err\n", b"last\n", b"out\n"]
    assert await read(stdout=True, tail=3) == [b"last\n", b"out\n"]
    assert await read(stderr=True) == [b"err\n"]
    assert await read(tail=0) == []


async def test_volumes(channel, engine):
    volumes = VolumeServiceStub(channel)
    made = (await volumes.CreateVolume(wire.CreateVolumeRequest(name="data", labels={"a": "b"}))).volume
    assert made.mountpoint.endswith("/data/_data")
    await engine.run("true", name="user", start=False, mounts=(Mount(source="data", target="/d"),))
    await volumes.CreateVolume(wire.CreateVolumeRequest())

    async def names(*filters):
        request = wire.ListVolumesRequest(filters=[wire.Filter(key=key, value=value) for key, value in filters])
        return [each.name for each in (await volumes.ListVolumes(request)).volumes]

    assert await names(("dangling", "false")) == ["data"]
    assert len(await names(("dangling", "true"))) == 1
    assert await names(("label", "a=b")) == await names(("name", "dat")) == ["data"]
    with pytest.raises(Conflict, match="volume is in use"), rpc.translated():
        await volumes.RemoveVolume(wire.RemoveVolumeRequest(name="data", force=True))
    await engine.containers.remove("user")
    await volumes.RemoveVolume(wire.RemoveVolumeRequest(name="data"))
    with pytest.raises(NotFound, match="no such volume"), rpc.translated():
        await volumes.GetVolume(wire.GetVolumeRequest(name="data"))
    with pytest.raises(InvalidArgument, match="invalid filter"), rpc.translated():
        await names(("odd", ""))
