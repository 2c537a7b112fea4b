"""Options of isolation on real containers: whose namespaces, which devices, which profile, how much, which log."""

import contextlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from agent.container import cdi
from agent.container.exec import ExecRequest
from shoal.errors import Conflict, InvalidArgument, NotFound, SourceNotFound, StartFailed, Unsupported
from shoal.model.base import Resources
from shoal.model.container import DeviceMapping, LogConfig, Mount, MountType, Tuning

pytestmark = pytest.mark.kernel

MIB = 1 << 20


async def said(engine, script, **fields):
    code, out, err = await engine.output("sh", "-c", script, **fields)
    assert (code, err) == (0, b""), err
    return out.decode().strip()


def own(kind):
    return os.readlink(f"/proc/self/ns/{kind}")


# namespaces


@pytest.mark.parametrize(
    ("field", "kind"), [("pid_mode", "pid"), ("ipc_mode", "ipc"), ("uts_mode", "uts"), ("cgroupns_mode", "cgroup")]
)
async def test_a_namespace_of_the_host(engine, field, kind):
    script = f"readlink /proc/self/ns/{kind}"
    assert await said(engine, script, **{field: "host"}) == own(kind)
    assert await said(engine, script) != own(kind)


async def test_the_hosts_name_and_processes_are_seen(engine):
    names = await said(engine, "hostname; cat /etc/hostname", uts_mode="host")
    assert names.split() == [os.uname().nodename] * 2
    assert await said(engine, f"test -d /proc/{os.getpid()} && echo seen", pid_mode="host") == "seen"


async def test_the_processes_of_another_container(engine):
    owner = await engine.run("sleep", "97", name="owner")
    assert "sleep 97" in await said(engine, "ps -o args", pid_mode="container:owner")
    await engine.containers.rename("owner", "other")
    joined = await engine.run("sleep", "100", name="joined", pid_mode="container:other")
    assert joined.spec.pid_mode == f"container:{owner.meta.id}"
    await engine.containers.stop("joined", timeout_s=0)
    await engine.containers.stop("other", timeout_s=0)
    with pytest.raises(Conflict, match="cannot join PID of a non running container"):
        await engine.containers.start("joined")
    with pytest.raises(NotFound, match="No such container: nobody"):
        await engine.run("true", pid_mode="container:nobody")


async def test_shared_memory_is_the_hosts_private_or_none(engine):
    mark = Path(f"/dev/shm/shoal-test-{os.getpid()}")
    mark.touch()
    try:
        assert await said(engine, f"ls {mark}", ipc_mode="host") == str(mark)
        assert await said(engine, "ls /dev/shm") == ""
        assert await said(engine, "test -d /dev/shm || echo none", ipc_mode="none") == "none"
    finally:
        mark.unlink()


# devices and security


async def test_a_device_of_the_host_can_be_used_as_far_as_it_may(engine):
    mapping = (DeviceMapping(source="/dev/zero", target="/dev/nought", permissions="r"),)
    assert await said(engine, "head -c 3 /dev/nought | wc -c", devices=mapping) == "3"
    assert await said(engine, "echo x > /dev/hole", devices=(DeviceMapping("/dev/null", "/dev/hole"),)) == ""
    with pytest.raises(StartFailed, match='adding custom device "/dev/nothing": no such file'):
        await engine.run("true", name="deviceless", devices=(DeviceMapping("/dev/nothing"),))
    assert engine.containers.get("deviceless").status.exit_code == 128
    with pytest.raises(StartFailed, match="not a device node"):
        await engine.run("true", devices=(DeviceMapping("/etc/passwd"),))


@pytest.fixture
def thing(tmp_path):
    """The name of a device that a file on this host describes."""
    kind, folder = f"shoal.test/thing{os.getpid()}", Path(cdi.FOLDERS[-1])
    own = {
        "deviceNodes": [{"path": "/dev/nought", "hostPath": "/dev/zero", "permissions": "r"}],
        "mounts": [{"hostPath": str(tmp_path), "containerPath": "/opt/thing", "options": ["ro", "nosuid"]}],
        "env": ["THING=0"],
    }
    hook = {"hookName": "createRuntime", "path": "/bin/touch", "args": ["touch", f"{tmp_path}/hooked"]}
    devices = [{"name": "0", "containerEdits": own}, {"name": "hooked", "containerEdits": {"hooks": [hook]}}]
    was_there = folder.exists()
    folder.mkdir(exist_ok=True)
    file = folder / f"shoal-test-{os.getpid()}.json"
    file.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": devices}))
    yield kind
    file.unlink()
    if not was_there:
        with contextlib.suppress(OSError):  # somebody else's is in it meanwhile
            folder.rmdir()


async def test_a_device_by_its_name_brings_what_its_file_says(shell, thing, tmp_path):
    (tmp_path / "library").write_text("here")
    script = "head -c 3 /dev/nought | wc -c; cat /opt/thing/library; echo $THING; touch /opt/thing/x"
    ran = await shell("run", "--name", "named", "--device", f"{thing}=0", "busybox", "sh", "-c", script)
    assert ran.out.split() == [b"3", b"here0"]
    assert "Read-only file system" in ran.err
    shown = await shell("inspect", "-f", "{{json .HostConfig.DeviceRequests}} {{json .HostConfig.Devices}}", "named")
    assert f'"DeviceIDs":["{thing}=0"]' in shown.out.decode()
    assert shown.out.endswith(b" []\n")
    refused = await shell("run", "--rm", "--device", f"{thing}=1", "busybox", "true")
    assert (refused.code, f"unresolvable CDI devices {thing}=1" in refused.err) == (125, True)
    gpu = await shell("run", "--rm", "--gpus", "device=nosuch", "busybox", "true")
    assert (gpu.code, "nvidia.com/gpu=nosuch" in gpu.err) == (125, True)


@pytest.mark.parametrize("runtime", ["shoal", "crun"])
async def test_hooks_of_a_device_are_run(shell, thing, tmp_path, runtime):
    if runtime == "crun" and shutil.which("crun") is None:
        pytest.skip("crun is not installed")
    wanted = ("run", "--rm", "--device", f"{thing}=hooked", "--runtime", runtime)
    ran = await shell(*wanted, "busybox", "sh", "-c", "echo out; exit 3")
    assert (ran.code, ran.out) == (3, b"out\n"), ran.err
    assert (tmp_path / "hooked").exists()


async def test_no_new_privileges_and_no_profile(engine):
    status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"
    assert (await said(engine, status)).split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]
    found = await said(engine, status, no_new_privileges=True, seccomp="unconfined")
    assert found.split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]
    await engine.run("sleep", "100", name="web", no_new_privileges=True)
    assert "NoNewPrivs:\t1" in await inside(engine, "web", "cat /proc/self/status")


async def inside(engine, ref, script):
    streams = await engine.containers.visits.exec(ref, ExecRequest(argv=("sh", "-c", script)))
    out = b""
    while (chunk := await streams.read()) is not None:
        out += chunk[1]
    await streams.close()
    return out.decode()


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ],
}


async def test_a_profile_of_the_users_own(engine, shell, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(PROFILE))
    options = ("--rm", "--security-opt", f"seccomp={tmp_path}/p.json")
    denied = await shell("run", *options, "busybox", "mkdir", "/new")
    assert denied.code == 1
    assert "Operation not permitted" in denied.err
    assert (await shell("run", *options, "--cap-add", "SYS_ADMIN", "busybox", "mkdir", "/new")).code == 0
    (tmp_path / "bad.json").write_text("{}")
    refused = await shell("run", "--security-opt", f"seccomp={tmp_path}/bad.json", "busybox", "true")
    assert refused.code == 125
    assert "Decoding seccomp profile failed" in refused.err


async def test_nothing_is_masked_when_that_is_asked_for(engine):
    assert await said(engine, "head -c1 /proc/timer_list | wc -c", unmasked=False) == "0"
    assert await said(engine, "head -c1 /proc/timer_list | wc -c", unmasked=True) == "1"


# how much


async def test_the_kernel_is_told_how_to_share(engine):
    tuning = Tuning(cpu_shares=512, cpuset_cpus="0", memory_swap_bytes=128 * MIB, memory_reservation_bytes=32 * MIB)
    container = await engine.run(
        "sleep", "100", name="web", limits=Resources(memory_bytes=64 * MIB), tuning=tuning, oom_score_adj=321
    )
    status = Path(f"/proc/{container.status.pid}/status").read_text()
    assert "Cpus_allowed_list:\t0\n" in status
    assert Path(f"/proc/{container.status.pid}/oom_score_adj").read_text().strip() == "321"
    changed = await engine.containers.update("web", tuning=Tuning(cpu_shares=1024))
    assert changed.tuning == Tuning(1024, 0, 0, "0", "", 32 * MIB, 128 * MIB)
    assert shares(container, engine) in ("1024", "39")


def shares(container, engine):
    for pattern in ("*/{}/cpu.shares", "{}/cpu.weight"):
        for path in Path("/sys/fs/cgroup").glob(pattern.format(f"{engine.cgroup}/{container.meta.id}")):
            return path.read_text().strip()
    raise AssertionError("nowhere")


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"tuning": Tuning(memory_swap_bytes=MIB)}, InvalidArgument, "always set the Memory limit"),
        ({"tuning": Tuning(cpuset_cpus="99")}, InvalidArgument, "Requested CPUs are not available"),
        ({"tuning": Tuning(io_weight=5)}, InvalidArgument, "Range of blkio weight"),
        ({"oom_score_adj": 2000}, InvalidArgument, "range for oom score adj"),
        ({"uts_mode": "host", "hostname": "x"}, InvalidArgument, "conflicting options: hostname and the UTS mode"),
        ({"ipc_mode": "odd"}, InvalidArgument, "invalid IPC mode: odd"),
        ({"pid_mode": "odd"}, InvalidArgument, "invalid PID mode"),
        ({"device_rules": ("x",)}, InvalidArgument, "invalid device cgroup format"),
        ({"log": LogConfig("syslog")}, Unsupported, "log driver syslog"),
        ({"log": LogConfig("json-file", {"max-file": "3"})}, InvalidArgument, "max-file cannot be specified"),
        ({"log": LogConfig("json-file", {"odd": "3"})}, InvalidArgument, "unknown log opt 'odd'"),
    ],
)
async def test_what_can_never_be_is_refused_by_name(engine, fields, error, words):
    with pytest.raises(error, match=words):
        await engine.run("true", **fields)
    assert await engine.containers.list(all=True) == []


# logs


async def test_a_log_is_rotated_kept_small_or_not_kept(engine, shell):
    script = "for i in $(seq 400); do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done"
    options = {"max-size": "10k", "max-file": "2"}
    container = await engine.run("sh", "-c", script, name="rotated", log=LogConfig("json-file", options))
    await engine.containers.wait("rotated")
    folder = Path(container.log_path).parent
    assert sorted(each.name for each in folder.glob("*.log*")) == [
        Path(container.log_path).name,
        f"{Path(container.log_path).name}.1",
    ]
    ran = await shell("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "hi")
    assert (ran.code, ran.text) == (0, "hi\n")
    refused = await shell("logs", "silent")
    assert "configured logging driver does not support reading" in refused.err


# names


async def test_names_are_looked_up_as_asked_for(engine, shell):
    ran = await shell(
        "run", "--rm", "--dns-search", "a.example", "--dns-option", "timeout:1", "--add-host", "host:host-gateway",
        "--domainname", "d.example", "busybox", "cat", "/etc/resolv.conf", "/etc/hosts", "/proc/sys/kernel/domainname",
    )  # fmt: skip
    assert "search a.example" in ran.text
    assert "options timeout:1" in ran.text
    assert "d.example" in ran.text
    assert [line for line in ran.text.splitlines() if line.endswith("\thost")] != []


# volumes


async def test_volumes_of_another_container_are_backed_up_and_restored(engine, shell, tmp_path):
    """As every course on docker teaches it."""
    await engine.run(
        "sh", "-c", "cd /dbdata; head -c 300000 /dev/urandom > a; mkdir d; ln -s a d/l; chmod 750 d",
        name="app", mounts=(Mount(target="/dbdata"),),
    )  # fmt: skip
    await engine.containers.wait("app")
    volume = Path(engine.volumes.get(engine.containers.get("app").mounts[0].source).mountpoint)
    backup = ("run", "--rm", "--volumes-from", "app", "-v", f"{tmp_path}:/backup", "busybox")
    assert (await shell(*backup, "tar", "cf", "/backup/b.tar", "/dbdata")).code == 0
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.extractfile("dbdata/a").read() == (volume / "a").read_bytes()
    await engine.run("true", name="again", start=False, mounts=(Mount(target="/dbdata"),))
    restore = ("run", "--rm", "--volumes-from", "again", "-v", f"{tmp_path}:/backup", "busybox")
    assert (await shell(*restore, "tar", "xf", "/backup/b.tar", "-C", "/")).code == 0
    restored = Path(engine.volumes.get(engine.containers.get("again").mounts[0].source).mountpoint)
    assert (restored / "a").read_bytes() == (volume / "a").read_bytes()
    assert os.readlink(restored / "d/l") == "a"
    assert (restored / "d").stat().st_mode & 0o777 == 0o750
    assert volume.exists()  # `--rm` took nothing of the others'


async def test_volumes_from_chains_gives_way_and_can_be_read_only(engine, tmp_path):
    bind = Mount(type=MountType.BIND, source=str(tmp_path), target="/bind")
    await engine.run("true", name="one", start=False, mounts=(Mount(source="named", target="/data"), bind))
    await engine.run("true", name="two", start=False, volumes_from=("one",))
    mounts = (Mount(source="other", target="/data"),)
    three = await engine.run("true", name="three", start=False, volumes_from=("two:ro",), mounts=mounts)
    assert {(each.source, each.target, each.read_only) for each in three.mounts} == {
        ("other", "/data", False),
        (str(tmp_path), "/bind", True),
    }
    code, _, err = await engine.output("touch", "/bind/x", volumes_from=("three",))
    assert code == 1
    assert b"Read-only file system" in err
    with pytest.raises(NotFound, match="No such container: nobody"):
        await engine.run("true", volumes_from=("nobody",))


async def test_volumes_that_nobody_uses_are_pruned(engine, shell):
    await engine.run("true", name="user", start=False, mounts=(Mount(source="used", target="/a"), Mount(target="/b")))
    await engine.volumes.create("idle", {"keep": "no"})
    anonymous = await engine.volumes.create()
    used = {each.name for each in engine.volumes.list()} - {"idle", anonymous.name}
    ran = await shell("volume", "prune", input=b"y\n")
    assert "anonymous local volumes" in ran.text
    assert anonymous.name in ran.text
    assert {each.name for each in engine.volumes.list()} == used | {"idle"}
    assert (await shell("volume", "prune", "-af", "--filter", "label=keep=yes")).text == "Total reclaimed space: 0B\n"
    assert "idle" in (await shell("volume", "prune", "-f", "--filter", "all=1")).text
    assert {each.name for each in engine.volumes.list()} == used


async def test_a_volume_that_is_a_folder_of_the_host(engine, shell, tmp_path):
    folder = tmp_path / "there"
    made = ("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={folder}", "bound")
    assert (await shell(*made)).text == "bound\n"
    with pytest.raises(SourceNotFound, match="no such directory"):
        await engine.run("true", mounts=(Mount(source="bound", target="/srv/data"),))
    folder.mkdir()
    assert (await shell("run", "--rm", "-v", "bound:/srv/data", "busybox", "touch", "/srv/data/x")).code == 0
    assert [each.name for each in folder.iterdir()] == ["x"]  # nothing of the image came into it
    [shown] = json.loads((await shell("volume", "inspect", "bound")).text)
    assert shown["Options"]["device"] == str(folder)
    for each in await engine.containers.list(all=True):
        await engine.containers.remove(each.meta.id)
    assert (await shell("volume", "rm", "bound")).code == 0
    assert [each.name for each in folder.iterdir()] == ["x"]  # it was never the volume's own
    assert (await shell("volume", "create", "-o", "type=odd", "-o", "device=:/x", "share")).code == 0
    assert "failed to mount local volume" in (await shell("run", "-v", "share:/x", "busybox")).err


async def test_an_exec_tells_of_its_end(engine, shell):
    await engine.run("sleep", "100", name="web")
    assert (await shell("exec", "web", "sh", "-c", "exit 3")).code == 3
    told = await shell(
        "events", "--until", "0s", "--filter", "event=exec_die", "--format", "{{json .Actor.Attributes}}"
    )
    attributes = json.loads(told.text)
    assert attributes["exitCode"] == "3"
    assert len(attributes["execID"]) == 64


async def test_commands_in_a_container_are_shown_as_long_as_they_run(engine, shell):
    await engine.run("sleep", "100", name="web")
    assert engine.containers.survey.layout("web").exec_ids == []
    assert (await shell("exec", "-d", "web", "sh", "-c", "read x < /dev/null; exec sleep 100")).code == 0
    assert (await shell("exec", "web", "true")).code == 0
    [shown] = json.loads((await shell("inspect", "web")).text)
    [exec_id] = shown["ExecIDs"]
    told = await shell(
        "events", "--until", "0s", "--filter", "event=exec_create", "--format", "{{json .Actor.Attributes}}"
    )
    assert exec_id in [json.loads(each)["execID"] for each in told.text.splitlines()]


async def test_the_oom_killer_is_disabled_where_the_kernel_can(engine):
    tuning, limits = Tuning(oom_kill_disable=True), Resources(memory_bytes=64 * MIB)
    try:
        container = await engine.run("sleep", "100", name="web", limits=limits, tuning=tuning)
    except Unsupported as error:
        assert "gone from cgroup v2" in str(error)
        return
    [control] = Path("/sys/fs/cgroup").glob(f"*/{engine.cgroup}/{container.meta.id}/memory.oom_control")
    assert "oom_kill_disable 1" in control.read_text()


async def test_shared_memory_goes_with_its_container(engine):
    await engine.run("sleep", "100", name="web", ipc_mode="shareable")
    assert f"{engine.paths.containers}" in Path("/proc/self/mounts").read_text()
    await engine.restart()
    assert await engine.output("ls", "/dev/shm", ipc_mode="container:web") == (0, b"", b"")
    await engine.containers.remove("web", force=True)
    assert f"{engine.paths.containers}" not in Path("/proc/self/mounts").read_text()
