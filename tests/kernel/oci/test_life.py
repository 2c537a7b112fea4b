"""A container's life as the specification has it, from create to delete, and what goes wrong on the way."""

from __future__ import annotations

import array
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.controllers import needs
from tests.kernel.oci.conftest import Bench

pytestmark = pytest.mark.kernel


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"timeout: {what}"
        time.sleep(0.01)


def test_a_created_container_waits_and_a_started_one_runs_its_command(bench: Bench, tmp_path: Path) -> None:
    config = bench.config("sh", "-c", "echo ran; exec sleep 100")
    config["annotations"] = {"who": "me"}
    pid_file = tmp_path / "pid"
    assert bench.create(config, "--pid-file", str(pid_file)).code == 0
    state = bench.state()
    assert (state["status"], state["id"], state["annotations"]) == ("created", "c", {"who": "me"})
    assert state["bundle"] == str(bench.directory / "bundle")
    assert state["pid"] == int(pid_file.read_text())
    assert bench.output() == ""
    assert bench.call("start", "c") == (0, "", "")
    assert bench.state()["status"] == "running"
    until(lambda: bench.output() == "ran\n", "it runs")
    assert bench.call("start", "c").code == 1
    assert bench.call("delete", "c").code == 1
    assert bench.call("kill", "c", "KILL").code == 0
    until(lambda: bench.state()["status"] == "stopped", "it is dead")
    assert bench.state()["pid"] == 0
    assert bench.call("kill", "c", "KILL").code == 1
    assert bench.call("delete", "c") == (0, "", "")
    assert bench.call("state", "c").code == 1
    assert bench.groups() == []


def test_what_enters_a_container_is_no_file_of_the_hosts(bench: Bench) -> None:
    """CVE-2019-5736: an image that has /proc/self/exe run gets a sealed copy of the interpreter."""
    assert bench.create(bench.config("true")).code == 0
    exe = Path(f"/proc/{bench.state()['pid']}/exe")
    assert str(exe.readlink()).startswith("/memfd:shoal-runtime")
    with pytest.raises(OSError), exe.open("r+b"):
        pass


def test_run_gives_the_exit_code_and_leaves_nothing(bench: Bench) -> None:
    assert bench.run(bench.config("sh", "-c", "echo out; echo err >&2; exit 3")) == (3, "out\n", "err\n")
    config = bench.config("sh", "-c", "kill -TERM $$")
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    assert bench.run(config).code == 128 + signal.SIGTERM
    assert bench.call("list", "--quiet").out == ""


def test_a_container_that_names_no_cgroup_leaves_none(bench: Bench) -> None:
    config = bench.config("true")
    del config["linux"]["cgroupsPath"]
    assert bench.create(config).code == 0
    assert named("shoal-runtime-c")
    assert bench.call("delete", "c").code == 0
    assert not named("shoal-runtime-c")


def named(name: str) -> list[str]:
    """The folders of cgroups that have such a group; those of others come and go under our eyes."""
    return [folder for folder, names, _ in os.walk("/sys/fs/cgroup") if name in names]


def test_an_id_is_taken_once(bench: Bench) -> None:
    assert bench.create(bench.config("true")).code == 0
    again = bench.call("create", "--bundle", str(bench.directory / "bundle"), "c")
    assert again.code == 1
    assert "container with id exists: c" in again.err
    assert bench.call("delete", "c").code == 0  # created, so nobody's work is lost


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nosuch"], "executable file not found in $PATH"),
        (["/nosuch"], "no such file"),
        (["/etc"], "permission denied"),
    ],
)
def test_what_cannot_be_run_is_told_and_nothing_is_left(bench: Bench, args: list[str], words: str) -> None:
    done = bench.run(bench.config(*args))
    assert done.code == 1
    assert words in done.err
    assert bench.call("list", "--quiet").out == ""


def test_errors_go_to_the_log_as_json(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bundle = bench.bundle(bench.config("nosuch"))
    bench.call("--log", str(log), "--log-format", "json", "run", "--bundle", str(bundle), "c")
    entry = json.loads(log.read_text())
    assert entry["level"] == "error"
    assert "nosuch" in entry["msg"]


@pytest.mark.parametrize(
    "words",
    [
        ("--systemd-cgroup", "list"),
        ("--nonsense", "list"),
        ("checkpoint", "c"),
        ("run", "--nonsense", "c"),
        ("run", "../c"),
        ("state",),
        ("kill", "c", "NOSUCH"),
    ],
)
def test_what_is_not_known_is_refused(bench: Bench, words: tuple[str, ...]) -> None:
    done = bench.call(*words)
    assert done.code == 1
    assert done.err.startswith("shoal-runtime: ")
    assert "Traceback" not in done.err


def test_false_may_be_said_of_a_flag(bench: Bench) -> None:
    assert bench.call("--systemd-cgroup=false", "list", "--quiet") == (0, "", "")


def test_exec_runs_beside_the_first_process(bench: Bench) -> None:
    bench.started(bench.config("sleep", "100"))
    assert bench.call("exec", "c", "sh", "-c", "cat /proc/1/comm; echo $X; exit 4") == (4, "sleep\n\n", "")
    told = bench.call("exec", "--env", "X=y", "-u", "5:6", "c", "sh", "-c", "echo $X; id -u; id -g")
    assert told == (0, "y\n5\n6\n", "")
    assert bench.call("exec", "--cwd", "/tmp", "c", "pwd") == (0, "/tmp\n", "")
    missing = bench.call("exec", "c", "nosuch")
    assert (missing.code, "executable file not found" in missing.err) == (1, True)


def test_a_detached_exec_is_left_to_whoever_reaps(bench: Bench, tmp_path: Path) -> None:
    bench.started(bench.config("sleep", "100"))
    process, pid_file = tmp_path / "process.json", tmp_path / "pid"
    process.write_text(json.dumps(bench.config("sleep", "99")["process"]))
    options = ["--process", str(process), "--detach", "--pid-file", str(pid_file)]
    assert subprocess.run([*bench.runtime, "exec", *options, "c"], stdin=subprocess.DEVNULL).returncode == 0
    pid = int(pid_file.read_text())
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0099\x00", "it runs")
    assert pid in json.loads(bench.call("ps", "--format", "json", "c").out)


def test_ps_takes_what_the_hosts_ps_takes(bench: Bench) -> None:
    pid = bench.started(bench.config("sleep", "100"))
    assert bench.call("ps", "c", "-o", "pid,args").out.split() == ["PID", "COMMAND", str(pid), "sleep", "100"]
    assert bench.call("ps", "--format", "json", "c").out.split() == ["[", str(pid), "]"]
    without, wrong = bench.call("ps", "c", "-o", "args"), bench.call("ps", "c", "--nosuch")
    assert (without.code, "couldn't find PID field" in without.err) == (1, True)
    assert (wrong.code, wrong.err.count("\n")) == (1, 1)


def test_events_tell_what_is_used_until_the_end(bench: Bench) -> None:
    bench.started(bench.config("sleep", "100"))
    once = bench.call("events", "--stats", "c")
    shown = json.loads(once.out)
    assert (once.code, shown["type"], shown["id"], shown["data"]["pids"]["current"]) == (0, "stats", "c", 1)
    assert shown["data"]["cpu"]["usage"]["total"] >= 0 and shown["data"]["memory"]["usage"]["usage"] > 0
    watching = subprocess.Popen(
        [*bench.runtime, "events", "--interval", "10ms", "c"], stdout=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    assert {json.loads(watching.stdout.readline())["type"] for _ in range(3)} == {"stats"}
    assert bench.call("kill", "--all", "c", "KILL").code == 0
    watching.stdout.read()
    assert watching.wait(60) == 0
    assert "is not running" in bench.call("events", "--stats", "c").err
    assert "such as 5s" in bench.call("events", "--interval", "soon", "c").err


@needs("memory")
def test_events_tell_of_a_kill_for_want_of_memory(bench: Bench) -> None:
    config = bench.config("sh", "-c", "x=$(yes | head -c 99999999)")
    config["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    assert bench.create(config).code == 0
    watching = subprocess.Popen([*bench.runtime, "events", "--interval", "1h", "c"], stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["type"] == "stats"
    assert bench.call("start", "c").code == 0
    assert set(watching.stdout) == {'{"type": "oom", "id": "c"}\n'}
    assert watching.wait(60) == 0


def test_pause_and_resume_are_seen_in_the_state(bench: Bench) -> None:
    bench.started(bench.config("sleep", "100"))
    assert bench.call("pause", "c").code == 0
    assert bench.state()["status"] == "paused"
    assert bench.call("pause", "c").code == 1
    assert bench.call("exec", "c", "true").code == 1
    assert bench.call("resume", "c").code == 0
    assert bench.state()["status"] == "running"


@needs("memory", "pids")
def test_update_changes_what_is_named_and_keeps_the_rest(bench: Bench) -> None:
    config = bench.config("sleep", "100")
    config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 40}}
    bench.started(config)
    assert bench.call("update", "--pids-limit", "50", "--memory", "80m", "c") == (0, "", "")
    shown = bench.call("exec", "c", "sh", "-c", "cd /; cat /proc/self/cgroup").out
    assert shown
    assert _limit(bench, "pids", "pids.max") == "50"
    assert _limit(bench, "memory", "memory.limit_in_bytes", "memory.max") == str(80 << 20)
    assert bench.call("update", "--pids-limit", "60", "c").code == 0
    assert _limit(bench, "memory", "memory.limit_in_bytes", "memory.max") == str(80 << 20)


def _limit(bench: Bench, controller: str, *files: str) -> str:
    """Whichever hierarchy has it here."""
    for top in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        for name in files:
            path = Path(f"{top}{bench.parent}/c/{name}")
            if path.exists():
                return path.read_text().strip()
    raise AssertionError(files)


def test_a_terminal_goes_to_the_console_socket(bench: Bench) -> None:
    path = bench.directory / "console"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    config = bench.config("sh", "-c", "tty; stty size", terminal=True, consoleSize={"height": 11, "width": 22})
    assert bench.create(config, "--console-socket", str(path)).code == 0
    accepted, _ = listener.accept()
    data, rights, _, _ = accepted.recvmsg(4096, socket.CMSG_SPACE(4))
    assert data
    master = array.array("i", rights[0][2])[0]
    assert bench.call("start", "c").code == 0
    shown = b""
    while b"11 22" not in shown:
        shown += os.read(master, 100)
    assert shown.split() == [b"/dev/pts/0", b"11", b"22"]
    os.close(master)


def test_run_joins_our_terminal_to_the_containers(bench: Bench) -> None:
    bundle = bench.bundle(bench.config("sh", "-c", "tty; read line; echo got $line; exit 6", terminal=True))
    command = shlex.join([*bench.runtime, "run", "--bundle", str(bundle), "c"])
    done = subprocess.run(["script", "-qec", command, "/dev/null"], input="word\n", capture_output=True, text=True)
    assert done.returncode == 6
    assert "/dev/pts/0" in done.stdout
    assert "got word" in done.stdout


def test_descriptors_are_kept_from_the_container_unless_they_are_given(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("given")
    with (tmp_path / "file").open() as file, (tmp_path / "file").open() as other:
        os.dup2(file.fileno(), 3) if file.fileno() != 3 else None
        bundle = bench.bundle(bench.config("sh", "-c", "cat <&3; ls /proc/self/fd"))
        argv = [*bench.runtime, "run", "--bundle", str(bundle), "--preserve-fds", "1", "c"]
        shell = f"exec {shlex.join(argv)} 3<{tmp_path / 'file'} 7<{tmp_path / 'file'}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert other
    assert done.stdout.startswith("given")
    assert "7" not in done.stdout.removeprefix("given").split()


def test_a_create_that_was_killed_is_repaired_by_delete(bench: Bench) -> None:
    config = bench.config("sleep", "100")
    config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"]}]}
    bundle = bench.bundle(config)
    create = subprocess.Popen(
        [*bench.runtime, "create", "--bundle", str(bundle), "c"], stdin=subprocess.DEVNULL, start_new_session=True
    )
    until(lambda: bench.groups() and any(path.joinpath("cgroup.procs").read_text() for path in bench.groups()), "made")
    until(lambda: bench.call("state", "c").code == 0 and bench.state()["status"] == "creating", "on record")
    children = Path(f"/proc/{create.pid}/task/{create.pid}/children").read_text().split()
    create.kill()
    create.wait()
    for child in children:  # the hook is nobody's but its own
        try:
            if "sleep" in Path(f"/proc/{child}/comm").read_text():
                os.kill(int(child), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert bench.state()["status"] == "creating"
    assert bench.call("start", "c").code == 1
    assert bench.call("delete", "--force", "c") == (0, "", "")
    assert bench.groups() == []


def test_list_spec_and_features_speak_the_specifications_words(bench: Bench, tmp_path: Path) -> None:
    assert bench.create(bench.config("true")).code == 0
    rows = json.loads(bench.call("list", "--format", "json").out)
    assert [(row["id"], row["status"]) for row in rows] == [("c", "created")]
    assert bench.call("list").out.split()[:6] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert bench.call("spec", "--bundle", str(tmp_path)).code == 0
    assert json.loads((tmp_path / "config.json").read_text())["process"]["args"] == ["sh"]
    assert bench.call("spec", "--bundle", str(tmp_path)).code == 1
    assert "createContainer" in json.loads(bench.call("features").out)["hooks"]
