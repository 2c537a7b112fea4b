"""What a container is shut off from: namespaces, capabilities, seccomp, paths, descriptors, devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.runtime import capability
from shoal.errors import InvalidArgument, StartFailed
from tests.kernel.runtime.conftest import host_mounts

pytestmark = pytest.mark.kernel


async def test_every_namespace_is_its_own_and_proc_1_is_the_command(box: Any) -> None:
    started = await box.start(box.config("sleep", "100"))
    ours, theirs = Path("/proc/self/ns"), Path(f"/proc/{started.pid}/ns")
    for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup"):
        assert os.readlink(ours / kind) != os.readlink(theirs / kind), kind
    assert os.readlink(ours / "user") == os.readlink(theirs / "user")
    # A process has its arguments a moment after its start is told.
    script = "until grep -q . /proc/1/cmdline; do :; done; cat /proc/1/cmdline"
    exec_ = await box.runtime.exec("c", {"args": ["sh", "-c", script]}, stdin=False, tty=False)
    assert (await box.drain(exec_))[1] == "sleep\x00100\x00"


async def test_capabilities_are_dockers_and_nothing_is_inheritable(box: Any) -> None:
    config = box.config("grep", "-E", "^(Cap|SigIgn|SigBlk|Seccomp:|NoNew)", "/proc/self/status")
    out = (await box.output(config))[1]
    fields = dict(line.split(":\t") for line in out.splitlines())
    assert fields == {
        "CapInh": "0" * 16,
        "CapPrm": "00000000a80425fb",
        "CapEff": "00000000a80425fb",
        "CapBnd": "00000000a80425fb",
        "CapAmb": "0" * 16,
        "SigBlk": "0" * 16,
        "SigIgn": "0" * 16,
        "NoNewPrivs": "0",
        "Seccomp": "2",
    }


async def test_another_user_has_no_capabilities_its_groups_and_may_reopen_its_stdout(box: Any) -> None:
    config = box.config(
        "sh",
        "-c",
        "id -u; id -g; id -G; grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status; echo again >/proc/self/fd/1",
        user={"uid": 1000, "gid": 1001, "additionalGids": [20, 30]},
        noNewPrivileges=True,
    )
    exit_, out, err = await box.output(config)
    assert (exit_.code, err) == (0, "")
    assert out.split() == [
        "1000",
        "1001",
        "1001",
        "20",
        "30",
        "CapPrm:",
        "0" * 16,
        "CapEff:",
        "0" * 16,
        "CapBnd:",
        "00000000a80425fb",
        "again",
    ]


async def test_ambient_capabilities_reach_another_user(box: Any) -> None:
    wanted = ["CAP_NET_BIND_SERVICE"]
    config = box.config(
        "grep",
        "-E",
        "Cap(Eff|Amb)",
        "/proc/self/status",
        user={"uid": 5, "gid": 5},
        capabilities=dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), wanted),
    )
    _, out, _ = await box.output(config)
    assert out.split() == ["CapEff:", f"{1 << 10:016x}", "CapAmb:", f"{1 << 10:016x}"]


async def test_only_three_descriptors_arrive(box: Any) -> None:
    leaked = os.open("/etc", os.O_RDONLY)  # an inheritable one in us must not matter
    os.set_inheritable(leaked, True)
    out = await box.sh("ls /proc/self/fd | tr '\\n' ' '")
    os.close(leaked)
    assert out.split() == ["0", "1", "2", "3"]  # 3 is ls reading the directory


async def test_masked_and_read_only_paths(box: Any) -> None:
    out = await box.sh(
        "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls -A /sys/firmware /proc/acpi | grep -vc :;"
        " for f in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/profiling"
        " /sys/fs/cgroup/cgroup.procs; do (echo 1 > $f) 2>/dev/null && echo wrote $f; done; true"
    )
    assert out.split() == ["0", "1"]  # one empty line between the two directories


async def test_mounting_and_new_namespaces_are_forbidden(box: Any) -> None:
    config = box.config(
        "sh", "-c", "mount -t tmpfs x /tmp; unshare -Ur true; unshare -m true; mknod /tmp/d b 7 0 && cat /tmp/d; true"
    )
    _, out, err = await box.output(config)
    assert out == ""
    assert err.count("ermission denied") + err.count("not permitted") == 4


async def test_release_agent_of_cgroup_v1_is_out_of_reach(box: Any) -> None:
    config = box.config(
        "sh", "-c", "mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c; find / -name release_agent; true"
    )
    _, out, _ = await box.output(config)
    assert out == ""


async def test_device_policy_denies_what_docker_denies(box: Any) -> None:
    config = box.config(
        "sh",
        "-c",
        "head -c1 /dev/zero | wc -c; echo x > /dev/null && echo ok; mknod /tmp/mem c 1 1 && cat /tmp/mem; true",
    )
    _, out, err = await box.output(config)
    assert out.split() == ["1", "ok"]
    assert "not permitted" in err


@pytest.mark.skipif(
    not {"10:229", "10:237"} <= set(os.listdir("/sys/dev/char")), reason="needs a kernel with FUSE and loop devices"
)
async def test_devices_are_denied_after_all_were_allowed(box: Any) -> None:
    script = "mknod /tmp/fuse c 10 229; mknod /tmp/loop c 10 237; : < /tmp/loop && echo ok; : < /tmp/fuse"
    config = box.config("sh", "-c", script)
    fuse = {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    config["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}, fuse]}
    exit_, out, err = await box.output(config)
    assert out == "ok\n", err
    assert "/tmp/fuse: Operation not permitted" in err
    assert exit_.code


async def test_limits_are_intersected_with_the_hosts(box: Any) -> None:
    config = box.config(
        "sh",
        "-c",
        "ulimit -n; ulimit -Hn; ulimit -c; ulimit -f",
        rlimits=[
            {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1 << 40},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 20},
        ],
    )
    exit_, out, _ = await box.output(config)
    assert exit_.code == 0
    soft, hard, core, size = out.split()
    assert (soft, core, size) == ("512", "0", "2048")
    assert hard == "unlimited" or int(hard) >= 4096


@pytest.mark.parametrize("path", ["/proc", "/sys", "/dev"])
async def test_an_image_with_a_link_for_a_system_directory_is_refused(box: Any, tmp_path: Path, path: str) -> None:
    evil, target = tmp_path / "evil", tmp_path / "target"
    shutil.copytree(box.image, evil, symlinks=True)
    target.mkdir()
    (evil / path[1:]).symlink_to(f"../../../../../../..{target}")
    with pytest.raises(StartFailed, match="symbolic link"):
        await box.start(box.config("true"), rootfs=box.rootfs("c", layers=(evil,)))
    assert not list(target.iterdir())
    assert await box.runtime.list() == {}


async def test_a_working_directory_that_leads_out_is_refused(box: Any) -> None:
    for number in range(3, 40):
        with pytest.raises(StartFailed):
            await box.start(box.config("pwd", cwd=f"/proc/self/fd/{number}"))
    with pytest.raises(StartFailed):
        await box.start(box.config("pwd", cwd="/proc/self/fd/7/../../made"))


async def test_mount_targets_are_resolved_inside_the_root(box: Any, tmp_path: Path) -> None:
    evil, outside, source = tmp_path / "evil", tmp_path / "outside", tmp_path / "source"
    shutil.copytree(box.image, evil, symlinks=True)
    outside.mkdir()
    source.mkdir()
    (source / "mark").write_text("x")
    (evil / "data").symlink_to(f"../../../../../..{outside}")
    config = box.config("sh", "-c", f"cat {outside}/mark")  # the link's target, taken from the container's root
    config["mounts"].append({"destination": "/data", "source": str(source), "options": ["rbind"]})
    config["process"]["args"] = ["sh", "-c", f"mkdir -p {outside}; cat /data/mark 2>/dev/null; true"]
    with pytest.raises(StartFailed):
        await box.start(config, rootfs=box.rootfs("c", layers=(evil,)))
    assert not list(outside.iterdir())


async def test_proc_may_not_be_covered(box: Any, tmp_path: Path) -> None:
    for destination in ("/proc", "/proc/self", "/proc/sys/kernel"):
        config = box.config("true")
        config["mounts"].append({"destination": destination, "source": str(tmp_path), "options": ["bind"]})
        with pytest.raises(InvalidArgument, match="/proc may not be covered"):
            await box.start(config)


async def test_the_device_that_masks_is_ours_not_the_images(box: Any, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    shutil.copytree(box.image, evil, symlinks=True)
    (evil / "dev").mkdir()
    (evil / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    out = await box.sh("cat /proc/timer_list; ls -l /dev/null", rootfs=box.rootfs("c", layers=(evil,)))
    assert out.startswith("crw-rw-rw-")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    config = box.config("true")
    config["mounts"] = [entry for entry in config["mounts"] if not entry["destination"].startswith("/dev")]
    with pytest.raises(InvalidArgument, match="maskedPaths"):
        await box.start(config, rootfs=box.rootfs("c", layers=(evil,)))


async def test_the_host_sees_no_mount_of_a_container(box: Any) -> None:
    before = host_mounts(box)
    await box.start(box.config("sleep", "100"))
    assert host_mounts(box) == before


async def test_below_the_root_of_a_container_there_is_nothing_of_the_host(box: Any) -> None:
    """One that may takes its own root away; whoever enters its mount namespace then is below it."""
    config = box.config("sh", "-c", "umount -l / && echo gone && exec sleep 100")
    every = list(capability.NAMES)
    config["process"]["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
    streams = await box.runtime.attach("c")
    started = await box.start(config)
    assert await streams.read() == (1, b"gone\n")
    enter = f"import os, ctypes; ctypes.CDLL(None).setns(os.open('/proc/{started.pid}/ns/mnt', 0), 0)"
    code = f"{enter}; print(os.listdir('/'))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
    await streams.close()


async def test_privileged_means_no_filter_no_masks_every_capability_the_host_has(box: Any) -> None:
    config = box.config(
        "sh", "-c", "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted"
    )
    every = list(capability.NAMES)
    config["process"]["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
    config["annotations"] = {}
    config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
    config["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    exit_, out, _ = await box.output(config)
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm"))
    assert exit_.code == 0
    assert out.split() == ["CapEff:", ours.split()[1], "Seccomp:", "0", "mounted"]
