"""Starting: commands and their errors, roots, mounts, environment of the first process."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.run import Exit, Rootfs
from shoal.errors import CommandNotExecutable, CommandNotFound, Conflict, InvalidArgument, NotFound, StartFailed

pytestmark = pytest.mark.kernel


async def test_exit_codes_are_the_commands_own(box: Any) -> None:
    for script, code in (("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 0), ("kill -KILL $$", 0)):
        exit_, _, _ = await box.output(box.config("sh", "-c", script))
        assert exit_.code == code  # a first process is deaf to signals it does not handle
        assert exit_.known


async def test_death_by_signal_counts_from_128(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    await box.runtime.signal("c", 9)
    assert (await box.runtime.wait("c")).code == 137
    with pytest.raises(Conflict, match="not running"):
        await box.runtime.signal("c", 9)


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("nosuch", CommandNotFound, r'exec: "nosuch": executable file not found in \$PATH'),
        ("/nosuch", CommandNotFound, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("/etc", CommandNotExecutable, 'exec: "/etc": permission denied'),
        ("/plain", CommandNotExecutable, 'exec: "/plain": permission denied'),
        ("/garbage", CommandNotExecutable, 'exec: "/garbage": exec format error'),
        ("/script", CommandNotFound, "interpreter"),
        ("plain", CommandNotFound, "executable file not found"),
    ],
)
async def test_commands_that_cannot_run(
    box: Any, tmp_path: Path, command: str, error: type[StartFailed], words: str
) -> None:
    layer = tmp_path / "layer"
    (layer / "bin").mkdir(parents=True)
    for name, text, mode in (
        ("plain", "#!/bin/sh\n", 0o644),
        ("garbage", "\x7fnot a program", 0o755),
        ("script", "#!/no/shell\n", 0o755),
        ("bin/plain", "", 0o644),
    ):
        (layer / name).write_text(text)
        (layer / name).chmod(mode)
    with pytest.raises(error, match=words):
        await box.start(box.config(command), rootfs=box.rootfs("c", layers=(layer, box.image)))
    assert await box.runtime.list() == {}
    assert not (box.run_dir / "keeper/c").exists()


async def test_the_command_is_looked_up_in_the_containers_own_path(box: Any) -> None:
    config = box.config("busybox", "echo", "found", env=["PATH=/nowhere:/bin", "A=1"])
    assert (await box.output(config))[1] == "found\n"
    with pytest.raises(CommandNotFound):
        await box.start(box.config("busybox", env=["PATH=/nowhere"]))


async def test_environment_working_directory_umask_and_host_name(box: Any) -> None:
    config = box.config(
        "sh",
        "-c",
        "echo $PWD; umask; hostname; stat -c %a .; env | sort",
        cwd="/a/b c/d",
        env=["PATH=/bin", "X=a b=c"],
        user={"uid": 0, "gid": 0, "umask": 0o027},
    )
    _, out, _ = await box.output(config)
    lines = out.splitlines()
    assert lines[:4] == ["/a/b c/d", "0027", "box", "755"]
    assert "X=a b=c" in lines


async def test_layers_are_stacked_top_first_and_the_writable_one_keeps_the_changes(box: Any, tmp_path: Path) -> None:
    top, middle = tmp_path / "top", tmp_path / "middle"
    for layer, text in ((top, "top"), (middle, "middle")):
        layer.mkdir()
        (layer / "who").write_text(text)
    rootfs = box.rootfs("c", layers=(top, middle, box.image))
    assert await box.sh("cat /who; echo new > /made; rm /bin/vi", rootfs=rootfs) == "top"
    assert (Path(rootfs.upper) / "made").read_text() == "new\n"


async def test_many_layers_with_long_names(box: Any, tmp_path: Path) -> None:
    """More than a page of mount options, by short relative names and by fsconfig."""
    for count, name in ((90, "l"), (60, "long" * 40)):
        layers = []
        for number in range(count):
            layer = tmp_path / f"{name}{number}"
            layer.mkdir(exist_ok=True)
            (layer / f"f{number}").touch()
            layers.append(layer)
        out = await box.sh("ls / | grep -c ^f", rootfs=box.rootfs("c", layers=(*layers, box.image)))
        assert int(out) == count


async def test_a_layer_path_with_separators(box: Any, tmp_path: Path) -> None:
    odd = tmp_path / "a:b,c\\d"
    odd.mkdir()
    (odd / "x").write_text("odd")
    assert await box.sh("cat /x", rootfs=box.rootfs("c", layers=(odd, box.image))) == "odd"


async def test_a_directory_as_root_and_a_root_without_a_writable_layer(box: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(box.image, root, symlinks=True)
    assert await box.sh("echo x > /made; cat /made", rootfs=Rootfs(path=str(root))) == "x\n"
    assert (root / "made").exists()
    for path in ("proc", "dev", "sys"):
        (root / path).mkdir(exist_ok=True)
    exit_, _, err = await box.output(box.config("touch", "/y"), rootfs=Rootfs(lower=(str(root),)))
    assert exit_.code == 1
    assert "Read-only" in err


async def test_read_only_root_with_a_writable_tmpfs(box: Any, fs_mount: Any) -> None:
    config = box.config("sh", "-c", "touch /x; touch /run/y && mount | grep ' /run '")
    config["root"] = {"readonly": True}
    config["mounts"].append(fs_mount("/run", "tmpfs", "nosuid", "nodev", "noexec", "size=1m"))
    _, out, err = await box.output(config)
    assert "Read-only file system" in err
    assert "tmpfs on /run type tmpfs (rw,nosuid,nodev,noexec" in out
    assert "size=1024k" in out


async def test_bind_mounts_of_directories_and_single_files(box: Any, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("1.2.3.4 x\n")
    volume = tmp_path / "volume"
    volume.mkdir()
    config = box.config(
        "sh",
        "-c",
        "cat /etc/hosts; echo w > /data/w; touch /ro/x; touch /data/deep/er 2>&1; ls /ro",
    )
    config["mounts"] += [
        {"destination": "/etc/hosts", "source": str(tmp_path / "hosts"), "options": ["rbind", "rprivate"]},
        {"destination": "/data", "source": str(volume), "options": ["rbind"]},
        {"destination": "/ro", "source": str(volume), "options": ["rbind", "ro"]},
    ]
    _, out, err = await box.output(config)
    assert out.startswith("1.2.3.4 x\n")
    assert out.endswith("w\n")
    assert "/ro/x: Read-only file system" in err
    assert (volume / "w").read_text() == "w\n"


async def test_a_missing_bind_source_is_named_and_nothing_stays(box: Any) -> None:
    config = box.config("true")
    config["mounts"].append({"destination": "/x", "source": "/no/such/dir", "options": ["bind"]})
    with pytest.raises(StartFailed, match=r"cannot bind /no/such/dir to /x: No such file or directory"):
        await box.start(config)
    assert await box.runtime.list() == {}


async def test_propagation_of_a_slave_mount(box: Any, tmp_path: Path) -> None:
    """A mount made on the host afterwards appears inside with rslave, not with the default."""
    shared = tmp_path / "shared"
    for name in ("a", "b"):
        (shared / name).mkdir(parents=True)
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    try:
        subprocess.run(["mount", "--make-shared", shared], check=True)
        config = box.config("sh", "-c", "read x; ls /slave/a /private/a", user={"uid": 0, "gid": 0})
        config["mounts"] += [
            {"destination": "/slave", "source": str(shared), "options": ["rbind", "rslave"]},
            {"destination": "/private", "source": str(shared), "options": ["rbind"]},
        ]
        streams = await box.runtime.attach("c", stdin=True)
        await box.start(config, stdin=True)
        subprocess.run(["mount", "-t", "tmpfs", "x", shared / "a"], check=True)
        (shared / "a/mark").touch()
        await streams.write(b"\n")
        _, out, _ = await box.drain(streams)
        assert out.count("mark") == 1
        await box.runtime.delete("c")
    finally:
        subprocess.run(["umount", "-R", shared], check=False)


async def test_a_network_namespace_by_path_an_empty_one_and_the_hosts(box: Any) -> None:
    assert "LOOPBACK,UP" in await box.sh("ip link show lo")
    owner = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link add v0 type bridge; echo; sleep 100"], stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        owner.stdout.readline()
        config = box.config("ip", "link")
        config["linux"]["namespaces"][4]["path"] = f"/proc/{owner.pid}/ns/net"
        assert "v0:" in (await box.output(config))[1]
    finally:
        owner.kill()
        owner.wait()
    config = box.config("readlink", "/proc/self/ns/net")
    del config["linux"]["namespaces"][4]
    assert (await box.output(config))[1].strip() == os.readlink("/proc/self/ns/net")


async def test_sysctls_of_the_containers_own_namespaces(box: Any) -> None:
    config = box.config("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax")
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "7", "kernel.msgmax": "4321"}
    assert (await box.output(config))[1].split() == ["7", "4321"]
    config["linux"]["sysctl"] = {"kernel.core_pattern": "x"}
    with pytest.raises(InvalidArgument, match="not kept per container"):
        await box.start(config)


async def test_two_containers_may_share_namespaces(box: Any) -> None:
    first = await box.start(box.config("sleep", "100"), name="first")
    config = box.config("sh", "-c", "cat /proc/1/cmdline; readlink /proc/self/ns/ipc")
    paths = {"pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net"}
    config["linux"]["namespaces"] = [
        {"type": kind, "path": f"/proc/{first.pid}/ns/{paths[kind]}"} for kind in paths
    ] + [{"type": "mount"}, {"type": "cgroup"}]
    del config["hostname"]
    _, out, _ = await box.output(config)
    assert out == "sleep\x00100\x00" + os.readlink(f"/proc/{first.pid}/ns/ipc") + "\n"


async def test_devices_of_the_config(box: Any) -> None:
    config = box.config("sh", "-c", "stat -c '%F %t:%T %a %u' /dev/mine /dev/sub/other; head -c1 /dev/mine | wc -c")
    config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 0},
        {"path": "/dev/sub/other", "type": "c", "major": 1, "minor": 3},
    ]
    assert (await box.output(config))[1].splitlines() == [
        "character special file 1:5 640 7",
        "character special file 1:3 666 0",
        "1",
    ]


async def test_a_start_of_a_running_container_is_refused_and_of_an_exited_one_is_a_restart(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    with pytest.raises(Conflict, match="is running"):
        await box.start(box.config("true"))
    await box.runtime.signal("c", 9)
    await box.runtime.wait("c")
    await box.start(box.config("sh", "-c", "exit 4"))
    assert (await box.runtime.wait("c")).code == 4


async def test_wait_list_and_delete(box: Any) -> None:
    with pytest.raises(NotFound, match="No such container: nobody"):
        await box.runtime.wait("nobody")
    await box.runtime.delete("nobody")
    started = await box.start(box.config("sleep", "100"))
    assert await box.runtime.list() == {"c": started}
    assert started.started_at_ns > 0
    await box.runtime.delete("c")
    assert await box.runtime.list() == {}
    assert not Path(f"/proc/{started.pid}").exists()
    await box.output(box.config("true"), keep=True)
    assert isinstance((await box.runtime.list())["c"], Exit)


@pytest.mark.parametrize("id", ["../x", "", "a/b", ".hidden", "x" * 200])
async def test_ids_that_would_leave_the_directory_are_refused(box: Any, id: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be the id"):
        await box.start(box.config("true"), name=id, log_path="", rootfs=Rootfs(path="/nowhere"))


async def test_the_portable_executor_runs_the_same_programs(portable_box: Any) -> None:
    box = portable_box
    assert await box.sh("hostname; grep Seccomp: /proc/self/status") == "box\nSeccomp:\t2\n"
    with pytest.raises(CommandNotFound, match="executable file not found"):
        await box.start(box.config("nosuch"))
    with pytest.raises(StartFailed, match="cannot bind"):
        config = box.config("true")
        config["mounts"].append({"destination": "/x", "source": "/no/such/dir", "options": ["bind"]})
        await box.start(config)
    await box.start(box.config("sleep", "100"), tty=True, rows=10, columns=20)
    exec_ = await box.runtime.exec(
        "c", {"args": ["sh", "-c", "tty; stty size; exit 6"]}, stdin=False, tty=True, rows=5, columns=6
    )
    exit_, out, _ = await box.drain(exec_)
    assert (exit_.code, out) == (6, "/dev/pts/1\r\n5 6\r\n")
    await box.runtime.signal("c", 9)
    assert (await box.runtime.wait("c")).code == 137
