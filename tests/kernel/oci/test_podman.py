"""Podman with shoal-runtime: what people type, with Podman's exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.oci.conftest import OWN_TERMINAL, RUNTIME, Done, without_leavings

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("podman") is None, reason="Podman is not installed"),
]
Podman = Callable[..., Done]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, layer: Path) -> Iterator[Podman]:
    top = tmp_path_factory.mktemp("podman")
    # What it does to a host's network, a bridge and chains of iptables that it never removes, it does to one of ours.
    netns = f"shoal-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    base = [
        "nsenter",
        f"--net=/run/netns/{netns}",
        "podman",
        "--root",
        str(top / "root"),
        "--runroot",
        str(top / "run"),
        "--tmpdir",
        str(top / "tmp"),
    ]
    # A cgroup of the tests' own, and the runtime under test.
    base += ["--cgroup-manager", "cgroupfs", "--runtime", RUNTIME]

    def call(*words: str, stdin: str | None = None, terminal: bool = False) -> Done:
        argv = [*base, *words]
        if terminal:
            argv = ["script", "-qec", subprocess.list2cmdline(argv), "/dev/null"]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120)
        return Done(done.returncode, done.stdout.replace("\0", "").replace("^@", ""), done.stderr)

    archive = top / "image.tar"
    subprocess.run(["tar", "-C", str(layer), "-cf", str(archive), "."], check=True)
    assert call("import", "-q", str(archive), "box").code == 0
    with without_leavings("libpod_parent"):
        yield call
        call("rm", "--all", "--force")
        call("rmi", "--all", "--force")
    left = call("ps", "--all", "--quiet").out
    subprocess.run(["ip", "netns", "delete", netns], check=True)
    assert left == ""


def test_run_passes_streams_and_exit_codes(podman: Podman) -> None:
    assert podman("run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    assert podman("run", "--rm", "-i", "box", "cat", stdin="input\n") == (0, "input\n", "")


def test_a_command_that_is_not_there_or_no_program_has_podmans_exit_codes(podman: Podman) -> None:
    missing = podman("run", "--rm", "box", "nosuch")
    assert missing.code == 127
    assert "executable file not found in $PATH" in missing.err
    assert podman("run", "--rm", "box", "/etc/nosuch").code == 127
    assert podman("run", "--rm", "box", "/tmp").code == 126


def test_terminals_are_the_containers_own(podman: Podman) -> None:
    assert podman("run", "--rm", "-it", "box", "sh", "-c", OWN_TERMINAL, terminal=True).code == 0
    assert podman("run", "-t", "--name", "told", "box", "tty", terminal=True).code == 0
    assert podman("logs", "told").out.split() == ["/dev/pts/0"]
    assert podman("rm", "told").code == 0


def test_a_container_in_the_background_is_stopped_started_paused_and_entered(podman: Podman) -> None:
    script = 'trap "exit 5" TERM; echo started; while :; do sleep 0.05; done'
    assert podman("run", "-d", "--name", "back", "box", "sh", "-c", script).code == 0
    assert podman("exec", "back", "sh", "-c", "cat /proc/1/comm; exit 9") == (9, "sh\n", "")
    assert podman("exec", "-it", "back", "sh", "-c", OWN_TERMINAL, terminal=True).code == 0
    assert podman("pause", "back").code == 0
    assert podman("ps", "--all", "--format", "{{.Status}}").out.strip() == "Paused"
    assert podman("unpause", "back").code == 0
    assert podman("stats", "--no-stream", "--format", "{{.PIDS}}", "back").out.strip() in "1 2 3"
    assert podman("stop", "-t", "20", "back").code == 0
    assert podman("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "back").out == "exited 5\n"
    assert podman("start", "back").code == 0
    deadline = time.monotonic() + 100
    while podman("logs", "back").out.count("started") < 2:
        assert time.monotonic() < deadline
    assert podman("kill", "back").code == 0
    assert podman("wait", "back").out == "137\n"
    assert podman("logs", "back").out == "started\nstarted\n"
    assert podman("rm", "back").code == 0


def test_limits_users_and_read_only_roots_hold(podman: Podman) -> None:
    options = ["--memory", "64m", "--pids-limit", "50", "--user", "1000:1000", "--read-only", "--tmpfs", "/etc"]
    done = podman(
        "run",
        "--rm",
        *options,
        "box",
        "sh",
        "-c",
        "id -u; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; touch /x",
    )
    assert done.out.split() == ["1000", str(64 << 20)]
    assert "Read-only file system" in done.err


def test_a_user_namespace_has_the_ids_that_it_was_given(podman: Podman) -> None:
    maps = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"]
    done = podman("run", "--rm", *maps, "box", "sh", "-c", "id -u; cat /proc/self/uid_map; touch /f && ls -ln /f")
    assert done.code == 0, done
    words = done.out.split()
    assert words[:4] == ["0", "0", "200000", "65536"]
    assert words[6:8] == ["0", "0"]


def test_the_network_that_podman_made_is_joined(podman: Podman) -> None:
    assert podman("run", "--rm", "box", "cat", "/proc/sys/net/ipv4/ping_group_range").out.split() == ["0", "0"]
    host = f"net:[{os.stat(f'/run/netns/shoal-test-{os.getpid()}').st_ino}]"
    assert podman("run", "--rm", "--network", "host", "box", "readlink", "/proc/self/ns/net").out.strip() == host
    assert podman("run", "--rm", "box", "readlink", "/proc/self/ns/net").out.strip() != host
