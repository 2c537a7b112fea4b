"""Hostile images, commands and races, row by row of what befell other engines: nothing of the host is reached."""

import asyncio
import hashlib
import io
import os
import platform
import struct
import sys
import tarfile
from pathlib import Path

import pytest

from agent.container.exec import ExecRequest
from shoal.errors import ShoalError, StartFailed
from shoal.model.container import Mount
from shoal.model.network import NetworkAttachment
from tests.kernel.container.conftest import keeper_of

pytestmark = pytest.mark.kernel


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


async def image(engine, name, *entries, changes=()):
    """The test's busybox with more entries: (name, "link", "dir" or "file", target or content)."""
    from_base = io.BytesIO()
    with tarfile.open(fileobj=from_base, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "cat", "ls", "id", "grep", "pwd", "sleep", "readlink", "true", "env", "mv", "ln"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for path, kind, target in entries:
            entry = tarfile.TarInfo(path)
            if kind == "file":
                entry.size, entry.mode = len(target), 0o755
                archive.addfile(entry, io.BytesIO(target))
                continue
            entry.type, entry.linkname = (tarfile.SYMTYPE, target) if kind == "link" else (tarfile.DIRTYPE, "")
            entry.mode = 0o755
            archive.addfile(entry)

    async def chunks():
        yield from_base.getvalue()

    await engine.images.import_image(chunks(), reference=f"{name}:latest", changes=changes)


async def said(engine, ref, *argv, **fields):
    streams = await engine.containers.visits.exec(ref, ExecRequest(argv=argv, **fields))
    out = b""
    while (chunk := await streams.read()) is not None:
        out += chunk[1]
    code = (await streams.wait()).code
    await streams.close()
    return code, out.decode()


async def test_a_command_that_is_the_runtime_itself_changes_nothing(engine):
    """CVE-2019-5736: the engine's own program is neither written nor left writable by whoever runs in a container."""
    programs = {path: digest(path) for path in (sys.executable, os.path.realpath(sys.executable))}
    write = "echo x > /proc/self/exe; echo x > /proc/1/exe; echo x >> /proc/$$/exe; true"
    for command in (("/proc/self/exe",), ("/proc/self/exe", "-c", "x"), ("sh", "-c", write)):
        try:
            await engine.output(*command)
        except ShoalError:
            continue
    await engine.run("sleep", "100", name="web")
    for command in (("/proc/self/exe",), ("sh", "-c", write)):
        try:
            await said(engine, "web", *command)
        except ShoalError:
            continue
    assert {path: digest(path) for path in programs} == programs


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the hostile loader is of x86-64's code")
async def test_the_runtimes_program_can_be_run_inside_but_never_written(engine):
    """CVE-2019-5736 as it was exploited: a loader of the image's own runs in the runtime's stead and keeps it open."""
    program = os.open(f"/proc/{keeper_of(engine.paths.run)}/exe", os.O_RDONLY)
    assert os.fstatvfs(program).f_flag & os.ST_RDONLY  # also when nobody runs it any more
    before = hashlib.sha256(os.pread(program, 1 << 27, 0)).hexdigest()
    attack = b"readlink /proc/self/fd/3; for p in /proc/self/fd/3 /proc/$$/exe; do echo x > $p; done; echo tried\n"
    [interpreter] = interpreters(sys.executable)
    files = ((interpreter, "file", LOADER), ("attack", "file", attack), ("script", "file", b"#!/proc/self/exe\n"))
    await image(engine, "loading", ("exe", "link", "/proc/self/exe"), *files)
    await engine.run("sleep", "100", name="web", image="loading")
    for command in ("/exe", "/script", "/proc/self/exe"):
        _, out, err = await engine.output(command, image="loading")
        assert out.decode().split() == ["/", "tried"], command  # the root of a mount that is in nobody's tree
        assert err.count(b"Text file busy") + err.count(b"Read-only file system") >= 1, command
        assert (await said(engine, "web", command))[1].count("tried") == 1, command
    assert hashlib.sha256(os.pread(program, 1 << 27, 0)).hexdigest() == before
    os.close(program)


def elf(code):
    """A program of x86-64 that is `code`, loaded where no other is."""
    base, begin = 0x10000000, 120
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, base + begin, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = begin + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


# Opens /proc/self/exe for reading, as descriptor 3, and execs /bin/sh with /attack as its script.
LOADER = elf(
    bytes.fromhex(
        "488d3d3b000000" "31f6" "b802000000" "0f05"
        "488d3d3a000000" "6a00" "488d0539000000" "50" "57" "4889e6" "31d2" "b83b000000" "0f05"
        "bf01000000" "b83c000000" "0f05"
    ).ljust(66, b"\x90")
    + b"/proc/self/exe\0/bin/sh\0/attack\0"
)  # fmt: skip


def interpreters(path):
    """The loader that a program names (elf(5), PT_INTERP), as a path of an image."""
    data = Path(os.path.realpath(path)).read_bytes()
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for at in range(offset, offset + size * count, size):
        kind, _, begin, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == 3:
            yield data[begin : begin + length - 1].decode().lstrip("/")


def numbers(listing):
    return {line.split()[8] for line in listing.splitlines() if "->" in line}


async def test_no_descriptor_of_the_host_leads_out(engine):
    """CVE-2024-21626: neither at the start nor in an exec, and no working directory is one."""
    listing = ("sh", "-c", "ls -l /proc/self/fd")
    _, out, _ = await engine.output(*listing)
    assert numbers(out.decode()) <= {"0", "1", "2", "3"}  # the last is the listing's own
    await engine.run("sleep", "100", name="web")
    _, shown = await said(engine, "web", *listing)
    assert numbers(shown) <= {"0", "1", "2", "3"}
    own = set(os.listdir("/"))
    for number in range(3, 40):
        workdir = f"/proc/self/fd/{number}"
        try:
            _, found = await said(engine, "web", "sh", "-c", "ls -a ../../../../", workdir=workdir)
        except ShoalError:
            continue
        assert set(found.split()) - {".", ".."} != own
    for number in (3, 5, 7, 8, 9, 10, 12):
        try:
            code, found, _ = await engine.output("sh", "-c", "ls ../../..", workdir=f"/proc/self/fd/{number}")
        except ShoalError:
            continue
        assert code != 0 or set(found.decode().split()) != own


@pytest.mark.parametrize("path", ["proc", "sys", "dev"])
async def test_a_system_folder_that_is_a_link_is_refused(engine, tmp_path, path):
    """CVE-2019-19921, CVE-2023-27561: and nothing is made where the link leads."""
    before = sorted(os.listdir(tmp_path))
    await image(engine, "linked", (path, "link", f"../../../../../../..{tmp_path}"))
    with pytest.raises(StartFailed):
        await engine.run("true", image="linked")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("volume", ["/proc", "/proc/sys", "/sys/../proc"])
async def test_a_volume_over_proc_is_refused(engine, volume):
    await image(engine, "covering", changes=(f'VOLUME ["{volume}"]',))
    with pytest.raises(ShoalError, match="/proc"):
        await engine.run("true", image="covering")


@pytest.mark.parametrize("volume", ["/../../../etc", "../../etc", "/link"])
async def test_a_volume_is_filled_from_the_image_and_from_nowhere_else(engine, volume):
    """CVE-2022-23648: its path leads out of the image, or through a link of the image."""
    await image(engine, "reaching", ("link", "link", "/../../../../etc"), changes=(f'VOLUME ["{volume}"]',))
    await engine.run("sleep", "100", name="web", image="reaching")
    found = {
        each
        for mount in engine.containers.get("web").mounts
        for each in os.listdir(engine.volumes.get(mount.source).mountpoint)
    }
    assert "shadow" not in found
    assert "passwd" not in found


async def test_a_variable_without_a_value_brings_nothing_of_the_host(engine, monkeypatch):
    """CVE-2026-57231 of podman: "*" or a bare name in an image's ENV."""
    monkeypatch.setenv("SHOAL_SECRET", "the host's")
    await image(engine, "bare")
    _, out, _ = await engine.output("env", image="bare", env=("SHOAL_SECRET", "A=b"))
    assert "SHOAL_SECRET" not in out.decode()
    assert "the host's" not in out.decode()


@pytest.mark.parametrize("user", ["0x0", "-1", "+1:", "4294967296", "18446744073709551616", "1:-1", "00:x", "root\0"])
async def test_odd_users_are_refused_or_exactly_who_they_are(engine, user):
    """CVE-2024-40635: a number that overflows must not come out as root."""
    await engine.run("sleep", "100", name="web", user="web")
    try:
        code, out = await said(engine, "web", "id", "-u", user=user)
    except ShoalError:
        return
    assert code != 0 or out.strip() == user.split(":")[0]


async def test_nothing_can_be_inherited_and_groups_are_the_images(engine):
    """CVE-2022-24769, CVE-2022-36109."""
    await engine.run("sleep", "100", name="web", user="web")
    for script in ("grep CapInh /proc/self/status", "grep CapAmb /proc/self/status"):
        assert (await said(engine, "web", "sh", "-c", script))[1].split()[1] == "0" * 16
        _, out, _ = await engine.output("sh", "-c", script, user="web")
        assert out.split()[1] == b"0" * 16
    assert sorted((await said(engine, "web", "id", "-G"))[1].split()) == ["10", "1001"]


async def test_the_hosts_network_shows_no_door_to_the_engine(engine):
    """CVE-2020-15257: no abstract socket, which any process on the host's network could connect to."""
    _, out, _ = await engine.output("grep", "@", "/proc/net/unix", networks=(NetworkAttachment("host"),))
    assert b"shoal" not in out
    assert b"keeper" not in out


async def test_cgroups_cannot_be_mounted_or_written(engine):
    """CVE-2022-0492: release_agent runs on the host."""
    script = (
        "mkdir /cg; mount -t cgroup -o memory cgroup /cg && echo mounted; mount -t cgroup2 none /cg && echo mounted;"
        "for f in $(ls -d /sys/fs/cgroup/* /sys/fs/cgroup/*/*); do test -w $f -a -f $f && echo x 2>/dev/null > $f"
        " && echo wrote $f; done; true"
    )
    _, out, _ = await engine.output("sh", "-c", script)
    assert out == b""


async def test_a_target_that_is_swapped_for_a_link_while_it_is_mounted_on_leads_nowhere(engine, tmp_path):
    """CVE-2021-30465: two containers share a volume, one flips a folder and a link to the host's."""
    (tmp_path / "victim").mkdir()
    flip = (
        f"mkdir -p /v/d; ln -s {tmp_path}/victim /v/l; echo ready;"
        " while true; do mv /v/d /v/x; mv /v/l /v/d; mv /v/d /v/l; mv /v/x /v/d; done"
    )
    await engine.run("sh", "-c", flip, name="flips", mounts=(Mount(source="shared", target="/v"),))
    mounts = (Mount(source="shared", target="/v"), Mount(source="other", target="/v/d"))
    for number in range(25):
        try:
            await engine.output("sh", "-c", "echo x > /v/d/planted", mounts=mounts, auto_remove=True)
        except ShoalError:
            await asyncio.sleep(0)
        assert os.listdir(tmp_path / "victim") == [], number
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


async def test_bytes_that_are_no_text_are_refused_in_a_sentence(shell):
    for line in (("run", "-e", "A=\udcff", "busybox"), ("run", "busybox", "echo", "\udcff"), ("inspect", "\udcff")):
        ran = await shell(*line)
        assert ran.code == 125
        assert "is not UTF-8" in ran.err
        assert "fault" not in ran.err
    assert not (await shell("ps", "-aq")).out
