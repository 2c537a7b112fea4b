"""Files in and out of containers, what they changed, and images of it; with hostile content too."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from agent.container.difference import Kind
from agent.container.exec import ExecRequest
from shoal.errors import InvalidArgument, ShoalError
from shoal.model.container import ContainerState, Mount, MountType

pytestmark = pytest.mark.kernel


async def read(pieces):
    return b"".join([piece async for piece in pieces])


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


async def once(data):
    yield data


def tar(*members):
    """A tar of (name, data or link target or type), as somebody else might make it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, value in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.uid, entry.gid, entry.mode = kind, 1000, 1000, 0o640
            if kind == tarfile.REGTYPE:
                entry.size = len(value)
                archive.addfile(entry, io.BytesIO(value))
            else:
                entry.linkname = value
                archive.addfile(entry)
    return buffer.getvalue()


async def said(engine, ref, script):
    streams = await engine.containers.visits.exec(ref, ExecRequest(argv=("sh", "-c", script)))
    out = b""
    while (chunk := await streams.read()) is not None:
        out += chunk[1]
    await streams.close()
    return out.decode()


@pytest.fixture(params=["running", "stopped", "created"])
async def web(engine, request):
    await engine.run("sh", "-c", "echo data > /data/file; sleep 100", name="web", start=False, mounts=(VOLUME,))
    if request.param != "created":
        await engine.containers.start("web")
        assert await said(engine, "web", "until test -s /data/file; do sleep 0.01; done") == ""
    if request.param == "stopped":
        await engine.containers.stop("web", timeout_s=0)
    return engine.containers.get("web")


VOLUME = Mount(source="vol", target="/data")


# cp


async def test_a_file_comes_out_and_goes_in_whatever_the_container_does(engine, shell, tmp_path, web):
    assert (await shell("cp", "web:/srv/data/hello", ".", cwd=tmp_path)).code == 0
    assert (tmp_path / "hello").read_bytes() == b"from the image\n"
    assert (tmp_path / "hello").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "hello").stat().st_uid == 0
    (tmp_path / "in").write_bytes(os.urandom(3_000_000))
    ran = await shell("cp", str(tmp_path / "in"), "web:/srv/data/new")
    assert (ran.code, ran.err) == (0, "")  # a terminal is told how much it was
    assert (await shell("cp", "-q", "web:/srv/data/new", str(tmp_path / "out"))) == (0, b"", "")
    assert digest(tmp_path / "out") == digest(tmp_path / "in")


async def test_volumes_are_part_of_a_container_that_has_run(engine, shell, tmp_path, web):
    if web.status.state == ContainerState.CREATED:
        return
    assert (await shell("cp", "web:/data/file", str(tmp_path))).code == 0
    assert (tmp_path / "file").read_text() == "data\n"
    (tmp_path / "more").write_text("more")
    assert (await shell("cp", str(tmp_path / "more"), "web:/data/")).code == 0
    mountpoint = engine.volumes.get("vol").mountpoint
    assert sorted(os.listdir(mountpoint)) == ["file", "more"]


async def test_folders_land_by_dockers_rules(engine, shell, tmp_path):
    await engine.run("sleep", "100", name="web")
    await said(engine, "web", "mkdir -p /a/b; echo x > /a/b/f; ln -s b /a/link; echo y > /file")
    (tmp_path / "there").mkdir()
    for args, file in (
        (("web:/a", "there"), "there/a/b/f"),
        (("web:/a/.", "there"), "there/b/f"),
        (("web:/a", "fresh"), "fresh/b/f"),
        (("web:/a/.", "fresh2"), "fresh2/b/f"),
        (("web:a/b", "there/"), "there/b/f"),
        (("web:/file", "there"), "there/file"),
        (("web:/file", "other"), "other"),
    ):
        assert (await shell("cp", *args, cwd=tmp_path)).code == 0, args
        assert (tmp_path / file).read_text() in ("x\n", "y\n"), args
    assert os.readlink(tmp_path / "there/a/link") == "b"
    assert (await shell("cp", "-L", "web:/a/link", "followed", cwd=tmp_path)).code == 0
    assert (tmp_path / "followed/f").read_text() == "x\n"
    for args in (("there", "web:/fresh"), ("there", "web:/srv"), ("there/.", "web:/tmp")):
        assert (await shell("cp", *args, cwd=tmp_path)).code == 0, args
    assert await said(engine, "web", "cat /fresh/a/b/f /srv/there/a/b/f /tmp/a/b/f") == "x\nx\nx\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("web:/nothing", "."), "Could not find the file /nothing in container web"),
        (("hello", "web:/no/such/place"), "Could not find the file /no/such in container web"),
        (("web:/etc/passwd", "hello/"), "is not a directory"),
        (("web:/etc", "hello"), "cannot copy directory"),
        (("hello", "web:/nope/"), "no such directory"),
        (("web:/etc/passwd", "gone/"), "no such directory"),
        (("web:/etc/passwd", "gone/deep"), "invalid output path"),
        (("web:/etc/passwd/", "."), "is not a directory"),
        (("nothing", "web:/"), "no such file or directory"),
        (("web:/a", "web:/b"), "copying between containers is not supported"),
        (("a", "b"), "must specify at least one container source"),
        (("nobody:/etc", "."), "No such container: nobody"),
        (("hello", "nobody:/etc"), "No such container: nobody"),
        (("hello", "web:/srv/data/hello/x"), "is not a directory"),
    ],
)
async def test_what_cannot_be_copied(engine, shell, tmp_path, args, words):
    await engine.run("sleep", "100", name="web")
    (tmp_path / "hello").write_text("hi")
    ran = await shell("cp", *args, cwd=tmp_path)
    assert ran.code in (1, 125)
    assert words in ran.err
    assert (tmp_path / "hello").read_text() == "hi"


async def test_a_tar_comes_out_and_goes_in_by_the_pipe(engine, shell):
    await engine.run("sleep", "100", name="web")
    out = await shell("cp", "web:/srv/data", "-")
    assert names(out.out) == ["data", "data/hello"]
    assert (await shell("cp", "-", "web:/tmp", input=gzip.compress(out.out))).code == 0
    assert await said(engine, "web", "cat /tmp/data/hello; stat -c %u /tmp/data/hello") == "from the image\n1000\n"
    refused = await shell("cp", "-", "web:/etc/passwd", input=out.out)
    assert 'destination "web:/etc/passwd" must be a directory' in refused.err
    assert "no tar archive" in (await shell("cp", "-", "web:/tmp", input=b"nonsense" * 100)).err


async def test_owners_are_roots_unless_they_are_asked_for(engine, shell, tmp_path):
    await engine.run("sleep", "100", name="web")
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 1234, 1235)
    await shell("cp", str(tmp_path / "file"), "web:/plain")
    await shell("cp", "-a", str(tmp_path / "file"), "web:/kept")
    assert await said(engine, "web", "stat -c %u:%g /plain /kept") == "0:0\n1234:1235\n"
    await shell("cp", "-a", "web:/srv/data/hello", str(tmp_path))
    assert (tmp_path / "hello").stat().st_uid == 1000


async def test_what_is_read_only_stays_as_it_is(engine, shell, tmp_path):
    (tmp_path / "file").write_text("x")
    bind = Mount(type=MountType.BIND, source=str(tmp_path), target="/host", read_only=True)
    await engine.run("sleep", "100", name="web", read_only=True, mounts=(bind,))
    for target in ("/", "/host/"):
        for stop in (False, True):
            if stop:
                await engine.containers.stop("web", timeout_s=0)
            ran = await shell("cp", str(tmp_path / "file"), f"web:{target}new" if target == "/" else f"web:{target}")
            assert ran.code == 1, (target, stop)
            assert "read-only" in ran.err
        await engine.containers.start("web")
    assert [each.name for each in tmp_path.iterdir() if each.name in ("file", "new")] == ["file"]


async def test_no_link_of_a_container_leads_out_of_it(engine, shell, tmp_path):
    """CVE-2018-15664 and its kin: what a copy reads and writes is always the container's own."""
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    await engine.run("sleep", "100", name="web")
    await said(
        engine, "web", f"mkdir -p /trap{tmp_path}; ln -s {tmp_path} /evil; ln -s /trap /up; ln -s {secret} /leak"
    )
    for _ in range(2):
        got = await shell("cp", "-L", "web:/leak", str(tmp_path / "got"))
        assert "the host's" not in ((tmp_path / "got").read_text() if (tmp_path / "got").exists() else "")
        assert got.code == 1
        (tmp_path / "mine").write_text("mine")
        await shell("cp", str(tmp_path / "mine"), "web:/evil/planted")
        await shell("cp", str(tmp_path / "mine"), "web:/evil")
        assert not (tmp_path / "planted").exists()
        assert secret.read_text() == "the host's"
        await engine.containers.stop("web", timeout_s=0)  # and the same of one that does not run


async def test_no_swap_of_a_folder_for_a_link_leads_out_either(engine, tmp_path):
    (tmp_path / "passwd").write_text("the host's")
    await engine.run(
        "sh",
        "-c",
        f"mkdir /d /real; echo inside > /real/passwd; ln -s {tmp_path} /link; echo ready;"
        " while true; do mv /d /x; mv /link /d; mv /d /link; mv /x /d; done",
        name="web",
    )
    async with asyncio.timeout(150):
        for _ in range(30):
            with contextlib.suppress(ShoalError):
                found = await read(engine.containers.files.read("web", "/d/passwd", "passwd"))
                assert b"the host's" not in found
            with contextlib.suppress(ShoalError):
                planted = once(tar(("planted", tarfile.REGTYPE, b"x")))
                await engine.containers.files.write("web", "/d", planted, keep_owner=False)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    "members",
    [
        [("../../planted", tarfile.REGTYPE, b"x")],
        [("/planted", tarfile.REGTYPE, b"x")],
        [("out", tarfile.SYMTYPE, "/host"), ("out/planted", tarfile.REGTYPE, b"x")],
        [("hard", tarfile.LNKTYPE, "../../../etc/shadow")],
    ],
)
async def test_an_archive_reaches_nothing_but_the_container(engine, tmp_path, members):
    await engine.run("sleep", "100", name="web")
    # Refused by us, or by a kernel that protects links of others in sticky folders (fs.protected_symlinks).
    with contextlib.suppress(ShoalError):
        await engine.containers.files.write("web", "/tmp", once(tar(*members)), keep_owner=True)
    assert await said(engine, "web", "ls /planted /etc/planted 2>/dev/null") == ""
    assert not (tmp_path / "planted").exists()


async def test_what_comes_out_stays_in_its_folder(engine, shell, tmp_path):
    """A container's tree may be full of links when it is copied over a tree that is there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path)
    await engine.run("sleep", "100", name="web")
    await said(engine, "web", "mkdir -p /t/a; echo x > /t/a/planted")
    ran = await shell("cp", "web:/t/.", str(tmp_path / "out"))
    assert ran.code == 1
    assert "cannot overwrite non-directory" in ran.err
    assert not (tmp_path / "planted").exists()


async def test_a_folder_is_not_replaced_by_a_file(engine):
    await engine.run("sleep", "100", name="web")
    with pytest.raises(InvalidArgument, match="cannot overwrite directory '/srv/data' with non-directory"):
        await engine.containers.files.write("web", "/srv", once(tar(("data", tarfile.REGTYPE, b"x"))), keep_owner=False)
    assert await said(engine, "web", "cat /srv/data/hello") == "from the image\n"


async def test_a_copy_leaves_no_mount_behind(engine, shell, tmp_path):
    await engine.run("sleep", "100", name="web", start=False)
    (tmp_path / "x").write_text("x")
    assert (await shell("cp", "web:/srv", str(tmp_path / "srv"))).code == 0
    assert (await shell("cp", str(tmp_path / "x"), "web:/x")).code == 0
    assert str(engine.paths.data) not in Path("/proc/self/mountinfo").read_text()
    await engine.containers.start("web")
    assert await said(engine, "web", "cat /x") == "x"


async def test_a_stopped_container_is_not_started_under_a_copy(engine):
    await engine.run("sleep", "100", name="web", start=False)
    begun, go = asyncio.Event(), asyncio.Event()

    async def slowly():
        begun.set()
        data = tar(("file", tarfile.REGTYPE, b"x" * 1000))
        yield data[:512]
        await go.wait()
        yield data[512:]

    copying = asyncio.create_task(engine.containers.files.write("web", "/", slowly(), keep_owner=False))
    await begun.wait()
    starting = asyncio.create_task(engine.containers.start("web"))
    await asyncio.sleep(0.2)
    assert not starting.done()
    go.set()
    await copying
    await starting
    assert await said(engine, "web", "wc -c < /file") == "1000\n"


# diff, export


async def test_diff_tells_what_was_added_changed_and_deleted(engine, shell):
    await engine.run("sleep", "100", name="web")
    await said(engine, "web", "echo x > /new; rm /srv/data/hello; echo y >> /etc/passwd; rm -r /home; mkdir /home")
    changes = {(each.kind, each.path) for each in await engine.containers.survey.difference("web")}
    assert changes == {
        (Kind.ADDED, "/new"),
        (Kind.MODIFIED, "/srv"),
        (Kind.MODIFIED, "/srv/data"),
        (Kind.DELETED, "/srv/data/hello"),
        (Kind.MODIFIED, "/etc"),
        (Kind.MODIFIED, "/etc/passwd"),
        (Kind.MODIFIED, "/home"),
        (Kind.DELETED, "/home/web"),
    }
    ran = await shell("diff", "web")
    assert ran.text.splitlines() == [
        "C /etc",
        "C /etc/passwd",
        "C /home",
        "D /home/web",
        "A /new",
        "C /srv",
        "C /srv/data",
        "D /srv/data/hello",
    ]


@pytest.mark.parametrize("stop", [False, True])
async def test_export_is_the_root_without_volumes_and_can_be_imported(engine, shell, tmp_path, stop):
    await engine.run("sleep", "100", name="web", mounts=(VOLUME,))
    await said(engine, "web", "echo x > /new; echo v > /data/v; rm /srv/data/hello; echo y > /tmp/y")
    if stop:
        await engine.containers.stop("web", timeout_s=0)
    assert (await shell("export", "-o", "web.tar", "web", cwd=tmp_path)).code == 0
    piped = await shell("export", "web")
    assert piped.out == (tmp_path / "web.tar").read_bytes()
    found = set(names(piped.out))
    assert {"new", "tmp/y", "bin/busybox", "data", ".dockerenv"} <= found
    assert not {"data/v", "srv/data/hello"} & found
    assert (await shell("import", "-c", 'CMD ["cat","/new"]', "web.tar", "again", cwd=tmp_path)).code == 0
    assert await engine.output(image="again") == (0, b"x\n", b"")


# commit


async def test_a_commit_holds_the_difference_and_nothing_else(engine, shell):
    await engine.run("sleep", "100", name="web", env=("A=b",), mounts=(VOLUME,))
    await said(engine, "web", "echo x > /new; rm /srv/data/hello; rm -r /home; mkdir /home; echo v > /data/v")
    ran = await shell(
        "commit", "-a", "Jane", "-m", "changed", "-c", 'CMD ["cat","/new"]', "-c", "ENV C=d", "web", "web:2"
    )
    assert ran.code == 0
    image = await engine.images.get("web:2")
    base = await engine.images.get("busybox")
    assert ran.text == f"{image.meta.id}\n"
    assert (image.author, image.comment) == ("Jane", "changed")
    assert image.diff_ids[:-1] == base.diff_ids
    assert image.size_bytes - base.size_bytes < 100
    assert image.config.env == ("A=b", "IMAGE=yes", "C=d")
    assert await engine.output(image="web:2") == (0, b"x\n", b"")
    script = "ls /home /srv/data; ls /data"
    assert await engine.output("sh", "-c", script, image="web:2") == (0, b"/home:\n\n/srv/data:\n", b"")
    assert engine.containers.get("web").status.state == ContainerState.RUNNING
    assert await said(engine, "web", "echo alive") == "alive\n"


async def test_a_commit_of_a_stopped_one_and_of_nothing(engine, shell):
    await engine.run("sh", "-c", "echo x > /new", name="web")
    await engine.containers.wait("web")
    assert (await shell("commit", "web", "web:2")).code == 0
    assert await engine.output("cat", "/new", image="web:2") == (0, b"x\n", b"")
    await engine.run("true", name="idle", start=False)
    ran = await shell("commit", "--pause=false", "idle")
    assert (await engine.images.get(ran.text.strip())).tags == ()
    assert "No such container" in (await shell("commit", "nobody", "x")).err
    assert (await shell("commit", "idle", "UPPER")).code == 1


async def test_an_agent_that_died_during_a_commit_lets_the_container_go_on(engine):
    container = await engine.run("sh", "-c", "while true; do echo x; sleep 0.01; done", name="web")
    await engine.runtime.pause(container.meta.id)
    await engine.restart()
    assert await asyncio.wait_for(said(engine, "web", "echo alive"), 60) == "alive\n"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
