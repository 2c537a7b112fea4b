"""Containers run: what they see, what they may, and how they end."""

import os
from pathlib import Path

import pytest

from shoal.errors import CommandNotExecutable, CommandNotFound, Conflict, InvalidArgument, NotFound, StartFailed
from shoal.model.base import Resources
from shoal.model.container import ContainerState, Mount, MountType, Ulimit

pytestmark = pytest.mark.kernel


async def test_output_and_exit_code(engine):
    assert await engine.output("sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


async def test_its_own_process_is_number_one_and_alone(engine):
    code, out, _ = await engine.output("sh", "-c", "readlink /proc/self/exe; ls -d /proc/[0-9]*; hostname")
    assert code == 0
    exe, *processes, hostname = out.decode().split()
    assert exe == "/bin/busybox"
    assert "/proc/1" in processes
    assert len(processes) <= 2
    container = (await engine.containers.list(all=True))[0]
    assert hostname == container.meta.id[:12]


async def test_environment(engine):
    container = await engine.run("env", start=False, env=("A=1", "IMAGE=mine"))
    from_attach = await engine.containers.visits.attach(container.meta.id, start=True)
    out = b""
    while (chunk := await from_attach.read()) is not None:
        out += chunk[1]
    await from_attach.close()
    assert out.decode().splitlines() == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"HOSTNAME={container.meta.id[:12]}",
        "HOME=/root",
        "A=1",
        "IMAGE=mine",
    ]


async def test_user_by_name_with_groups_and_home(engine):
    _, out, _ = await engine.output("sh", "-c", "id -u; id -g; id -G; echo $HOME", user="web")
    assert out.decode().splitlines() == ["1000", "1001", "1001 10", "/home/web"]


async def test_an_unknown_user_is_refused(engine):
    with pytest.raises(StartFailed, match="unable to find user ghost"):
        await engine.run("true", user="ghost")


async def test_a_missing_folder_is_made_and_entered(engine):
    assert (await engine.output("pwd", workdir="/not/there"))[1] == b"/not/there\n"


async def test_limits_hold(engine):
    code, out, _ = await engine.output(
        "sh", "-c", "ulimit -n", ulimits=(Ulimit("nofile", 123, 456),), limits=Resources(memory_bytes=32 << 20, pids=20)
    )
    assert (code, out) == (0, b"123\n")


async def test_a_limit_that_the_host_cannot_give_is_refused(engine):
    with pytest.raises(StartFailed, match=r"(?i)operation not permitted"):
        await engine.run("true", ulimits=(Ulimit("nofile", 123, 1 << 40),))


async def test_memory_beyond_the_limit_kills_it(engine):
    container = await engine.run(
        "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=2", limits=Resources(memory_bytes=16 << 20)
    )
    ending = await engine.containers.wait(container.meta.id)
    assert ending.exit_code == 137
    assert engine.containers.get(container.meta.id).status.oom_killed


async def test_a_read_only_root_with_a_tmpfs(engine):
    script = "touch /x; touch /scratch/x && echo scratch; touch /dev/shm/x && echo shm"
    code, out, err = await engine.output(
        "sh", "-c", script, read_only=True, mounts=(Mount(type=MountType.TMPFS, target="/scratch"),)
    )
    assert (code, out.split()) == (0, [b"scratch", b"shm"])
    assert b"Read-only file system" in err


async def test_the_writable_layer_outlives_a_stop(engine):
    container = await engine.run("sh", "-c", "echo once >> /kept; cat /kept")
    await engine.containers.wait(container.meta.id)
    attachment = await engine.containers.visits.attach(container.meta.id, start=True)
    assert await attachment.read() == (1, b"once\nonce\n")
    await attachment.close()


async def test_files_of_the_host_side(engine):
    code, out, _ = await engine.output(
        "sh", "-c", "cat /etc/hosts /etc/hostname; ls /.dockerenv", hostname="web", hosts=("db:10.9.9.9",)
    )
    assert code == 0
    assert b"127.0.0.1\tlocalhost" in out
    assert b"10.9.9.9\tdb\n" in out
    assert b"\tweb\n" in out
    assert b"\nweb\n/.dockerenv" in out


async def test_init_reaps_and_passes_on(engine):
    _, out, _ = await engine.output("sh", "-c", "readlink /proc/1/exe; exit 5", init=True)
    assert out == b"/sbin/docker-init\n"


async def test_privileged_sees_more(engine):
    code, out, _ = await engine.output("sh", "-c", "grep CapEff /proc/self/status; ls /dev/kmsg", privileged=True)
    plain = await engine.output("sh", "-c", "grep CapEff /proc/self/status")
    assert code == 0
    assert int(out.split()[1], 16) > int(plain[1].split()[1], 16)


async def test_a_command_that_is_not_there(engine):
    with pytest.raises(CommandNotFound, match="executable file not found in \\$PATH"):
        await engine.run("nothere", name="bad")
    container = engine.containers.get("bad")
    assert container.status.state == ContainerState.CREATED
    assert container.status.exit_code == 127
    assert "not found" in container.status.error


@pytest.mark.parametrize("command", ["/bin/plain", "/bin/broken", "/tmp"])
async def test_a_command_that_cannot_run(engine, command):
    with pytest.raises(CommandNotExecutable):
        await engine.run(command, name="bad")
    assert engine.containers.get("bad").status.exit_code == 126


async def test_a_failed_start_leaves_nothing_and_can_be_tried_again(engine, tmp_path):
    source = tmp_path / "gone"
    source.mkdir()
    container = await engine.run(
        "true", start=False, mounts=(Mount(type=MountType.BIND, source=str(source), target="/x"),)
    )
    source.rmdir()
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        await engine.containers.start(container.meta.id)
    assert await engine.runtime.list() == {}
    source.mkdir()
    await engine.containers.start(container.meta.id)
    assert (await engine.containers.wait(container.meta.id)).exit_code == 0


async def test_a_missing_image(engine):
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        await engine.run("true", image="nope")
    assert await engine.containers.list(all=True) == []


async def test_names_are_unique_and_made_up(engine):
    first = await engine.run("true", start=False)
    assert "_" in first.name
    with pytest.raises(Conflict, match=f'The container name "/{first.name}" is already in use'):
        await engine.run("true", name=first.name)
    await engine.containers.remove(first.name)
    again = await engine.run("true", name=first.name, start=False)
    assert again.meta.id != first.meta.id


async def test_list_shows_running_ones_newest_first(engine):
    stopped = await engine.run("true", start=False)
    older = await engine.run("sleep", "100")
    newer = await engine.run("sleep", "100")
    names = [each.name for each in await engine.containers.list()]
    assert names == [newer.name, older.name]
    assert len(await engine.containers.list(all=True)) == 3
    assert [each.name for each in await engine.containers.list(last=1)] == [newer.name]
    found = await engine.containers.list(filters=[("status", "created")])
    assert [each.name for each in found] == [stopped.name]
    found = await engine.containers.list(all=True, filters=[("ancestor", "busybox"), ("since", stopped.name)])
    assert len(found) == 2


async def test_a_container_whose_image_lost_its_name_is_known(engine):
    def untagged():
        found = engine.containers.survey.untagged(made)
        return [each.name for each in made if each.meta.id in found]

    await engine.add("app")
    old = await engine.run("true", name="old", image="app", start=False)
    await engine.add("app", "ENV A=b")
    new = await engine.run("true", name="new", image="app", start=False)
    made = [old, new, await engine.run("true", name="exact", image=old.image_id, start=False)]
    assert untagged() == ["old"]
    await engine.images.tag(old.image_id, "app")
    assert untagged() == ["new"]
    await engine.images.remove("app", force=True, users=engine.containers.image_users)
    assert untagged() == ["old", "new"]


async def test_nothing_of_the_host_leaks_in(engine):
    held = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        code, out, _ = await engine.output("ls", "/proc/self/fd")
    finally:
        os.close(held)
    assert code == 0
    assert set(out.split()) <= {b"0", b"1", b"2", b"3"}


async def test_removing_frees_everything(engine):
    container = await engine.run("sleep", "100")
    folder = engine.paths.containers / container.meta.id
    await engine.containers.remove(container.meta.id, force=True)
    assert not folder.exists()
    assert not Path(f"/proc/{container.status.pid}").exists()
    assert await engine.runtime.list() == {}
    assert engine.containers.find(container.name) is None
