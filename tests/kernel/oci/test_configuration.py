"""What a configuration may ask for: namespaces, id maps, hooks, mounts, propagation, resources, scheduling."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.oci.conftest import Bench

pytestmark = pytest.mark.kernel

MAPS = [{"containerID": 0, "hostID": 300000, "size": 65536}]


def with_user(config: dict[str, Any]) -> dict[str, Any]:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"].update(uidMappings=MAPS, gidMappings=MAPS)
    return config


def test_hooks_run_in_order_with_the_state_and_where_they_belong(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    config = bench.config("sh", "-c", "echo command >>/log")
    config["mounts"].append({"destination": "/log", "type": "bind", "source": str(log), "options": ["rbind"]})
    host = os.readlink("/proc/self/ns/uts")

    def hook(name: str, path: str) -> dict[str, Any]:
        status = "$(cat | tr -d ' ' | grep -o '\"status\":\"[a-z]*\"' | cut -d: -f2)"
        script = f"echo {name} {status} $(readlink /proc/self/ns/uts) $X"
        return {"path": "/bin/sh", "args": ["sh", "-c", f"{script} >>{path}"], "env": ["X=y", "PATH=/bin:/usr/bin"]}

    outside = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    config["hooks"] = {name: [hook(name, str(log))] for name in outside}
    config["hooks"]["startContainer"] = [hook("startContainer", "/log")]
    done = bench.run(config)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in log.read_text().splitlines()]
    names = [line[0] for line in lines]
    assert [name for name in names if name not in ("command", "poststart")] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststop",
    ]
    assert names.index("startContainer") < names.index("command")
    told = {line[0]: line[1:] for line in lines if len(line) > 1}
    assert told["prestart"] == ['"creating"', host, "y"]
    assert told["createRuntime"] == ['"creating"', host, "y"]
    assert told["startContainer"][0] == '"created"'
    assert told["poststop"] == ['"stopped"', host, "y"]
    assert told["createContainer"][1] == told["startContainer"][1] != host


def test_a_hook_that_fails_or_takes_too_long_undoes_the_container(bench: Bench) -> None:
    config = bench.config("true")
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]}]}
    done = bench.run(config)
    assert (done.code, "exit status 3: no luck" in done.err) == (1, True)
    config["hooks"] = {"createContainer": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}
    done = bench.run(config)
    assert (done.code, "took longer than 1 s" in done.err) == (1, True)
    assert bench.call("list", "--quiet").out == ""


def test_a_user_namespace_maps_ids_and_owns_what_is_made_in_it(bench: Bench) -> None:
    config = with_user(
        bench.config("sh", "-c", "id -u; cat /proc/self/uid_map; hostname; ls -ln /dev/null; echo >/dev/null")
    )
    root = bench.bundle(config) / "rootfs"
    subprocess.run(["chown", "-R", "--no-dereference", "300000:300000", str(root)], check=True)
    done = bench.run(config)
    assert (done.code, done.err) == (0, "")
    words = done.out.split()
    assert words[:5] == ["0", "0", "300000", "65536", "bench"]
    assert words[5].startswith("crw")


def test_ids_of_a_bind_mount_are_mapped(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 7, 8)
    maps = [{"containerID": 7, "hostID": 107, "size": 2}]
    config = bench.config("stat", "-c", "%u:%g", "/m/file")
    bind = {"destination": "/m", "type": "bind", "source": str(source), "options": ["rbind"]}
    config["mounts"].append({**bind, "uidMappings": maps, "gidMappings": maps})
    done = bench.run(config)
    assert (done.code, done.out) == (0, "107:108\n"), done


def test_a_time_namespace_has_its_own_clocks(bench: Bench) -> None:
    config = bench.config("cat", "/proc/uptime")
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 10_000_000}, "monotonic": {"secs": 5}}
    done = bench.run(config)
    assert (done.code, done.err) == (0, "")
    assert float(done.out.split()[0]) > 10_000_000


def test_namespaces_are_joined_by_path(bench: Bench) -> None:
    holder = subprocess.Popen(["unshare", "--net", "--uts", "--ipc", "--pid", "--fork", "sleep", "60"])
    try:
        inside = ""
        while not inside:  # the one that lives in the new pid namespace
            inside = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().strip()
        kinds = {"network": "net", "uts": "uts", "ipc": "ipc", "pid": "pid"}
        config = bench.config("sh", "-c", "for n in net uts ipc pid; do readlink /proc/self/ns/$n; done; ls -d /proc/1")
        del config["hostname"]
        config["linux"]["namespaces"] = [
            {"type": kind, "path": f"/proc/{inside}/ns/{name}"} for kind, name in kinds.items()
        ] + [{"type": "mount"}]
        done = bench.run(config)
        assert (done.code, done.err) == (0, "")
        assert done.out.split() == [os.readlink(f"/proc/{inside}/ns/{name}") for name in kinds.values()] + ["/proc/1"]
    finally:
        subprocess.run(["kill", "-9", inside], check=False)
        holder.kill()
        holder.wait()


def test_mount_options_hold_deep_and_shallow(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(source / "sub")], check=True)
    try:
        config = bench.config("sh", "-c", "grep -E ' /(a|b|c)' /proc/self/mountinfo")
        for destination, options in (
            ("/a", ["rbind", "ro", "noexec"]),
            ("/b", ["rbind", "rro", "rnosuid"]),
            ("/c", ["bind", "nodev", "noatime", "rslave"]),
        ):
            mount = {"destination": destination, "type": "bind", "source": str(source), "options": options}
            config["mounts"].append(mount)
        done = bench.run(config)
    finally:
        subprocess.run(["umount", str(source / "sub")], check=True)
    assert (done.code, done.err) == (0, "")
    seen = {line.split()[4]: set(line.split()[5].split(",")) for line in done.out.splitlines()}
    assert seen["/a"] >= {"ro", "noexec"}
    assert "rw" in seen["/a/sub"]
    assert seen["/b"] >= {"ro", "nosuid"}
    assert seen["/b/sub"] >= {"ro", "nosuid"}
    assert seen["/c"] >= {"rw", "nodev", "noatime"}
    assert "/c/sub" not in seen


def test_a_tmpfs_may_begin_with_what_the_image_has(bench: Bench) -> None:
    config = bench.config(
        "sh", "-c", "cat /seed/deep/file; stat -c %a:%u /seed/deep; echo new >/seed/new; readlink /seed/l"
    )
    root = bench.bundle(config) / "rootfs"
    (root / "seed/deep").mkdir(parents=True)
    (root / "seed/deep").chmod(0o750)
    (root / "seed/deep/file").write_text("seed\n")
    (root / "seed/l").symlink_to("/etc/shadow")
    config["mounts"].append({"destination": "/seed", "type": "tmpfs", "options": ["tmpcopyup", "size=1m"]})
    done = bench.run(config)
    assert (done.code, done.out, done.err) == (0, "seed\n750:0\n/etc/shadow\n", "")
    assert not (root / "seed/new").exists()


@pytest.mark.parametrize(
    ("wanted", "shown"), [("private", set()), ("shared", {"shared"}), ("unbindable", {"unbindable"})]
)
def test_the_roots_propagation_is_as_asked_for(bench: Bench, wanted: str, shown: set[str]) -> None:
    config = bench.config("sh", "-c", "grep ' / / \\| / ' /proc/self/mountinfo | head -1")
    config["linux"]["rootfsPropagation"] = wanted
    done = bench.run(config)
    fields = done.out.split()
    assert {field.partition(":")[0] for field in fields[6 : fields.index("-")]} == shown


def test_resources_scheduling_and_scores_are_set(bench: Bench) -> None:
    config = bench.config(
        "sh", "-c", "cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; ulimit -n", oomScoreAdj=500
    )
    config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 200}]
    assert bench.run(config).out.split() == ["500", "7", "123"]


def test_devices_are_made_and_others_refused(bench: Bench) -> None:
    script = (
        "head -c 1 /dev/odd | wc -c; stat -c %a:%u /dev/odd; mknod /tmp/k c 1 11 && head -c 0 /tmp/k || echo refused"
    )
    config = bench.config("sh", "-c", script)
    config["linux"]["devices"] = [
        {"path": "/dev/odd", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}
    ]
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    assert bench.run(config).out.split() == ["1", "640:3", "refused"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"linux": {"intelRdt": {"closID": "x"}}}, "intelRdt"),
        ({"linux": {"mountLabel": "label"}}, "mountLabel"),
        ({"process": {"apparmorProfile": "nosuch"}}, "apparmor"),
        ({"process": {"selinuxLabel": "nosuch"}}, "selinux"),
        ({"process": {"execCPUAffinity": {"initial": "0"}}}, "execCPUAffinity"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}}, "SCMP_ACT_NOTIFY"),
        ({"linux": {"personality": {"domain": "PDP11"}}}, "PDP11"),
        ({"linux": {"cgroupsPath": "a.slice:b:c"}}, "systemd"),
        ({"vm": {"kernel": {"path": "/k"}}}, "vm"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(bench: Bench, change: dict[str, Any], word: str) -> None:
    config = bench.config("true")
    for part, fields in change.items():
        config.setdefault(part, {}).update(fields)
    done = bench.run(config)
    assert done.code == 1
    assert word.lower() in done.err.lower(), done.err
    assert json.loads(bench.call("list", "--format", "json").out) == []
