"""Volumes and binds inside real containers."""

import os
from pathlib import Path

import pytest

from agent.kernel import syscalls as sys
from shoal.errors import Conflict, InvalidArgument, StartFailed
from shoal.model.container import Mount, MountType

pytestmark = pytest.mark.kernel


def bind(source, target="/m", **fields):
    return Mount(type=MountType.BIND, source=str(source), target=target, **fields)


async def test_a_bind_is_seen_from_both_sides(engine, tmp_path):
    (tmp_path / "in").write_text("host")
    code, out, _ = await engine.output("sh", "-c", "cat /m/in; echo container > /m/out", mounts=(bind(tmp_path),))
    assert (code, out) == (0, b"host")
    assert (tmp_path / "out").read_text() == "container\n"


async def test_a_read_only_bind_cannot_be_written(engine, tmp_path):
    code, _, err = await engine.output("touch", "/m/x", mounts=(bind(tmp_path, read_only=True),))
    assert code == 1
    assert b"Read-only file system" in err


async def test_a_single_file_can_be_bound(engine, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert (await engine.output("cat", "/etc/new", mounts=(bind(tmp_path / "file", "/etc/new"),)))[1] == b"mine"


async def test_a_missing_source_is_made_only_when_asked(engine, tmp_path):
    missing = tmp_path / "a/b"
    with pytest.raises(InvalidArgument, match="bind source path does not exist"):
        await engine.run("true", mounts=(bind(missing),))
    assert await engine.containers.list(all=True) == []
    assert (await engine.output("ls", "/m", mounts=(bind(missing, create_source=True),)))[0] == 0
    assert missing.stat().st_mode & 0o777 == 0o755


async def test_a_new_volume_is_filled_from_the_image_with_owner_and_mode(engine):
    mount = Mount(source="data", target="/srv/data")
    assert (await engine.output("cat", "/srv/data/hello", mounts=(mount,)))[1] == b"from the image\n"
    about = (engine.volumes.path("data") / "hello").stat()
    assert (about.st_uid, about.st_mode & 0o777) == (1000, 0o640)


async def test_a_volume_behind_a_link_of_the_image(engine):
    code, out, _ = await engine.output(
        "sh", "-c", "cat /var/link/hello; echo x > /var/link/new; ls /srv/data", mounts=(Mount(target="/var/link"),)
    )
    assert (code, out) == (0, b"from the image\nhello\nnew\n")


async def test_a_used_volume_keeps_what_it_has(engine):
    mount = Mount(source="data", target="/srv/data")
    await engine.output("sh", "-c", "rm /srv/data/hello; echo mine > /srv/data/x", mounts=(mount,))
    assert (await engine.output("ls", "/srv/data", mounts=(mount,)))[1] == b"x\n"


async def test_a_volume_that_is_not_to_be_filled(engine):
    mount = Mount(source="data", target="/srv/data", no_copy=True)
    assert (await engine.output("ls", "/srv/data", mounts=(mount,)))[1] == b""


async def test_a_volume_is_shared_and_outlives_its_containers(engine):
    mount = Mount(source="data", target="/d")
    await engine.output("sh", "-c", "echo shared > /d/x", name="one", mounts=(mount,))
    assert (await engine.output("cat", "/d/x", name="two", mounts=(mount,)))[1] == b"shared\n"
    users = engine.containers.volume_users("data")
    assert len(users) == 2
    with pytest.raises(Conflict, match="volume is in use"):
        await engine.volumes.remove("data", users)
    for name in ("one", "two"):
        await engine.containers.remove(name, volumes=True)
    assert (engine.volumes.path("data") / "x").read_text() == "shared\n"


async def test_anonymous_volumes_go_with_their_last_container(engine):
    first = await engine.run("true", name="first", start=False, mounts=(Mount(target="/d"),))
    shared = first.mounts[0]
    await engine.run("true", name="second", start=False, mounts=(Mount(source=shared.source, target="/other"),))
    await engine.containers.remove("first", volumes=True)
    assert engine.volumes.get(shared.source).anonymous
    await engine.containers.remove("second", volumes=True)
    assert engine.volumes.list() == []


async def test_without_v_anonymous_volumes_stay(engine):
    await engine.run("true", name="first", start=False, mounts=(Mount(target="/d"),))
    await engine.containers.remove("first")
    assert len(engine.volumes.list()) == 1


async def test_a_tmpfs_has_its_size_and_mode(engine):
    mount = Mount(type=MountType.TMPFS, target="/t", tmpfs_size_bytes=1 << 20, tmpfs_mode=0o700)
    code, out, _ = await engine.output("sh", "-c", "stat -c %a /t; df -k /t | tail -1", mounts=(mount,))
    assert code == 0
    assert out.split()[0] == b"700"
    assert b"1024" in out


async def test_a_tmpfs_takes_the_words_of_mount(engine):
    mount = Mount(type=MountType.TMPFS, target="/t", tmpfs_options=("exec", "uid=1000", "gid=5", "nr_inodes=10"))
    script = "stat -c '%u %g' /t; grep ' /t ' /proc/self/mounts"
    _, out, _ = await engine.output("sh", "-c", script, mounts=(mount,))
    owner, line = out.decode().splitlines()
    words = line.split()[3].split(",")
    assert owner == "1000 5"
    assert "nr_inodes=10" in words
    assert "noexec" not in words
    assert {"nosuid", "nodev"} <= set(words)
    with pytest.raises(InvalidArgument, match="invalid tmpfs option"):
        await engine.run("true", mounts=(Mount(type=MountType.TMPFS, target="/t", tmpfs_options=("nosuch=1",)),))


async def test_a_folder_of_a_volume_is_mounted_and_no_link_leads_out_of_it(engine, shell, tmp_path):
    whole = Mount(source="data", target="/v")
    await engine.output("sh", "-c", f"mkdir -p /v/a/b; echo x > /v/a/b/file; ln -s {tmp_path} /v/out", mounts=(whole,))
    (tmp_path / "file").write_text("the host's")
    part = Mount(source="data", target="/m", subpath="a/b")
    await engine.run("sleep", "100", name="web", mounts=(part,))
    await engine.output("sh", "-c", "echo y > /m/more", mounts=(part,))
    assert sorted(each.name for each in (engine.volumes.path("data") / "a/b").iterdir()) == ["file", "more"]
    await engine.containers.stop("web", timeout_s=0)
    assert (await shell("cp", "web:/m/file", "-")).code == 0  # also while it does not run
    for subpath in ("out", "a/../../..", "nosuch", "/a"):
        with pytest.raises((InvalidArgument, StartFailed)):
            await engine.output("cat", "/m/file", mounts=(Mount(source="data", target="/m", subpath=subpath),))


@pytest.mark.parametrize(("recursion", "expected"), [("", b"er"), ("writable", b"e"), ("disabled", b"r")])
async def test_mounts_below_a_read_only_source_are_read_only_too_unless_they_are_not_to_be(
    engine, tmp_path, recursion, expected
):
    (tmp_path / "below").mkdir()
    sys.call("mount", b"tmpfs", os.fsencode(tmp_path / "below"), b"tmpfs", 0, None)
    try:
        (tmp_path / "below/here").touch()
        script = "test -e /m/below/here && printf e; touch /m/below/x 2>/dev/null || printf r"
        mount = bind(tmp_path, read_only=True, recursion=recursion)
        assert (await engine.output("sh", "-c", script, mounts=(mount,)))[1] == expected
    finally:
        sys.call("umount2", os.fsencode(tmp_path / "below"), 0)


async def test_a_propagation_that_the_sources_mount_has_no_part_in_is_refused(engine, tmp_path):
    place = os.fsencode(tmp_path)
    sys.call("mount", place, place, None, sys.MS_BIND, None)
    sys.call("mount", None, place, None, sys.MS_PRIVATE, None)
    try:
        for propagation in ("rshared", "slave"):
            with pytest.raises(Conflict, match="is not a shared"):
                await engine.run("true", mounts=(bind(tmp_path, propagation=propagation),))
        sys.call("mount", None, place, None, sys.MS_SHARED, None)
        assert (await engine.output("true", mounts=(bind(tmp_path, propagation="rslave"),)))[0] == 0
    finally:
        sys.call("umount2", place, sys.MNT_DETACH)


async def test_a_creation_that_fails_leaves_no_volume(engine, tmp_path):
    os.makedirs(tmp_path / "data/volumes/bad/_data", exist_ok=True)
    with pytest.raises(InvalidArgument):
        await engine.run("true", mounts=(Mount(target="/d"), bind(tmp_path / "missing")))
    assert engine.volumes.list() == []
    assert await engine.containers.list(all=True) == []


async def test_a_volume_is_mounted_while_somebody_uses_it_and_deleting_it_deletes_nothing_of_others(engine, tmp_path):
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    volume = await engine.volumes.create("memory", options=options)
    mounts = (Mount(source="memory", target="/x"),)
    await engine.run("sh", "-c", "echo data > /x/file; sleep 100", name="one", mounts=mounts)
    await engine.restart()
    await engine.run("sleep", "100", name="two", mounts=mounts)
    await engine.containers.stop("one", timeout_s=0)
    assert Path(volume.mountpoint).is_mount()
    await engine.containers.stop("two", timeout_s=0)
    assert not Path(volume.mountpoint).is_mount()
    await engine.containers.start("two")
    (Path(volume.mountpoint) / "theirs").write_text("kept")
    held = os.open(volume.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    await engine.containers.remove("two", force=True)
    await engine.containers.remove("one")
    await engine.volumes.remove("memory")
    try:
        assert os.listdir(held) == ["theirs"]
    finally:
        os.close(held)
