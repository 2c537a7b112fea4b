"""Images whose own files stand where the runtime mounts, masks, makes a terminal or goes to work: nothing of the host
is reached, and what was promised holds."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.container.exec import ExecRequest
from shoal.errors import ShoalError
from shoal.model.container import Mount
from tests.kernel.container.conftest import drained
from tests.kernel.container.test_hostile import image

pytestmark = pytest.mark.kernel

PATTERN = Path("/proc/sys/kernel/core_pattern")
LINKED = tuple((f"dev/{name}", "link", "/proc/sys/kernel/core_pattern") for name in ("null", "console", "tty", "ptmx"))
PROBE = (
    "readlink /dev/null; readlink /dev/console; { cat /proc/kcore /proc/keys /proc/timer_list; ls /sys/firmware; }"
    " 2>/dev/null; echo x > /dev/console; echo x > /dev/null; echo probed"
)


@pytest.fixture(autouse=True)
def untouched():
    """The file that hostile links lead to says afterwards what it said before."""
    before = PATTERN.read_bytes()
    yield
    assert PATTERN.read_bytes() == before


@pytest.mark.parametrize("tty", [False, True])
async def test_links_of_the_image_in_dev_are_neither_masks_nor_consoles(engine, tty):
    """CVE-2025-31133, CVE-2025-52565."""
    await image(engine, "linked", *LINKED, ("dev/pts/0", "link", "/proc/sys/kernel/core_pattern"))
    _, out, _ = await engine.output("sh", "-c", PROBE, image="linked", tty=tty)
    assert out.split() == ([b"x", b"probed"] if tty else [b"probed"])


@pytest.mark.parametrize("tty", [False, True])
async def test_a_volume_on_dev_chooses_no_mask_and_no_console(engine, tty):
    """The same, where /dev is somebody's folder: what it has there is not trusted, so that the start is refused."""
    volume = Mount(source="dev", target="/dev")
    fill = "".join(f"ln -s /proc/sys/kernel/core_pattern /v/{name}; " for name in ("null", "console", "ptmx", "kcore"))
    await engine.output("sh", "-c", fill, mounts=(Mount(source="dev", target="/v"),))
    with pytest.raises(ShoalError):
        await engine.output("sh", "-c", PROBE, mounts=(volume,), tty=tty)


async def test_a_flipping_null_masks_nothing_that_is_not_masked(engine):
    """The race of it: another container swaps the folder's null for a link while this one starts."""
    flip = (
        "mkdir /v/pts; busybox mknod /v/null c 1 3; ln -s /proc/sys/kernel/core_pattern /v/fake; echo ready;"
        " while :; do mv /v/null /v/x; mv /v/fake /v/null; mv /v/null /v/fake; mv /v/x /v/null; done"
    )
    mounts = (Mount(source="dev", target="/v"),)
    container = await engine.run("sh", "-c", flip, name="flips", mounts=mounts, start=False)
    attachment = await engine.containers.visits.attach(container.meta.id, start=True)
    assert await attachment.read() == (1, b"ready\n")
    await attachment.close()
    for _ in range(10):
        try:
            _, out, _ = await engine.output(
                "sh", "-c", "cat /proc/kcore | wc -c", mounts=(Mount(source="dev", target="/dev"),), auto_remove=True
            )
        except ShoalError:
            await asyncio.sleep(0)
            continue
        assert out.strip() == b"0"


async def test_a_sysctl_is_set_where_the_kernel_keeps_it(engine):
    """CVE-2025-52881: files of the image under /proc and /sys, a volume beside them, are never what is written."""
    await image(
        engine, "faking", ("proc/sys/net/ipv4/ip_forward", "file", b"0\n"), ("proc/self/attr/exec", "file", b""),
        ("sys/fs/cgroup/x", "file", b""),
    )  # fmt: skip
    script = "cat /proc/sys/net/ipv4/ip_forward; grep -c ' /proc proc ' /proc/self/mounts; ls /sys/fs/cgroup/x"
    sysctls = {"net.ipv4.ip_forward": "1"}
    _, out, err = await engine.output("sh", "-c", script, image="faking", sysctls=sysctls)
    assert (out, b"No such file" in err) == (b"1\n1\n", True)


@pytest.mark.parametrize("workdir", ["/proc/self/fd/8", "/proc/self/cwd/../..", "/out", "/out/../../../tmp"])
async def test_a_working_folder_of_the_image_is_inside_it(engine, tmp_path, workdir):
    """CVE-2024-21626 by WORKDIR, and through links of the image."""
    await image(engine, "working", ("out", "link", f"/../../..{tmp_path}"), changes=(f"WORKDIR {workdir}",))
    (tmp_path / "here").touch()
    try:
        _, out, _ = await engine.output("sh", "-c", "pwd -P; ls -a; ls -a ../../../..", image="working")
    except ShoalError:
        return
    assert b"here" not in out.split()
    assert set(os.listdir("/")) - set(out.decode().split()) - {"bin", "dev", "proc", "sys", "etc", "tmp"}


async def test_no_namespace_of_ones_own_gives_cgroups_or_masks_back(engine):
    """CVE-2022-0492: release_agent by way of a user namespace; and what is masked or read-only stays so."""
    script = (
        "unshare -UrC true && echo unshared; unshare -Urm true && echo unshared; unshare -m true && echo unshared;"
        "umount /proc/kcore && echo unmasked; mount -o remount,rw /proc/sys && echo writable;"
        "mount --bind /proc /mnt && echo bound; echo 1 > /proc/sysrq-trigger && echo rebooted; echo done"
    )
    for user in ("root", "web"):
        _, out, _ = await engine.output("sh", "-c", script, user=user)
        assert out == b"done\n", user


async def test_no_program_or_library_of_the_container_runs_for_a_copy(engine, shell, tmp_path):
    """CVE-2019-14271, CVE-2026-41567: its decompressors, its tar, its C library's modules."""
    trap = b"#!/bin/sh\necho pwned > /pwned\n"
    programs = [f"bin/{name}" for name in ("tar", "gzip", "gunzip", "unpigz", "xz", "zstd", "python3", "env")]
    libraries = [f"{folder}/libnss_files.so.2" for folder in ("lib", "lib64", "lib/x86_64-linux-gnu")]
    await image(engine, "trapped", *((name, "file", trap) for name in (*programs, *libraries)))
    await engine.run("sleep", "100", name="web", image="trapped")
    (tmp_path / "in").write_text("x")
    for _ in range(2):
        assert (await shell("cp", "web:/etc", str(tmp_path / "etc"))).code in (0, 1)
        assert (await shell("cp", str(tmp_path / "in"), "web:/in")).code == 0
        assert (await shell("cp", "web:/bin", "-")).code == 0
        assert (await shell("export", "web")).code == 0
        assert (await shell("commit", "web")).code == 0
        await engine.containers.stop("web", timeout_s=0)
    await engine.containers.start("web")
    said = await drained(await engine.containers.visits.exec("web", ExecRequest(argv=("cat", "/pwned"))))
    assert b"No such file" in said[2]
    assert not Path("/pwned").exists()
