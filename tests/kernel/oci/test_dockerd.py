"""dockerd and containerd's shim with shoal-runtime (`--add-runtime`): one daemon for all tests, with nothing shared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.oci.conftest import OWN_TERMINAL, RUNTIME, Done, without_leavings

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="docker.io is not installed"),
]
Docker = Callable[..., Done]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, layer: Path) -> Iterator[Docker]:
    top = Path("/run") / f"shoal-test-docker-{os.getpid()}"  # a socket's path must be short
    top.mkdir()
    socket = f"unix://{top}/docker.sock"
    options = [f"--data-root={top}/data", f"--exec-root={top}/exec", f"--pidfile={top}/pid", f"--host={socket}"]
    options += ["--bridge=none", "--iptables=false", "--ip-masq=false", "--storage-driver=vfs"]
    options += [f"--add-runtime=shoal={RUNTIME}", "--default-runtime=shoal"]
    log = (top / "log").open("w")
    daemon = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log, start_new_session=True)

    def call(*words: str, stdin: str | None = None, terminal: bool = False) -> Done:
        argv = ["docker", "--host", socket, *words]
        if terminal:
            argv = ["script", "-qec", subprocess.list2cmdline(argv), "/dev/null"]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120)
        return Done(done.returncode, done.stdout.replace("\0", "").replace("^@", ""), done.stderr)

    try:
        deadline = time.monotonic() + 60
        while call("version").code:
            assert daemon.poll() is None, (top / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "dockerd does not come up"
            time.sleep(0.1)
        archive = tmp_path_factory.mktemp("docker") / "image.tar"
        subprocess.run(["tar", "-C", str(layer), "-cf", str(archive), "."], check=True)
        assert call("import", str(archive), "box").code == 0
        with without_leavings("docker"):
            yield call
            left = call("ps", "--all", "--quiet").out.split()
            if left:
                call("rm", "--force", *left)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        log.close()
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for path in reversed([line.split()[1] for line in mounts if line.split()[1].startswith(str(top))]):
            subprocess.run(["umount", path], check=False)
        shutil.rmtree(top)


def test_run_passes_streams_and_exit_codes(docker: Docker) -> None:
    run = ("run", "--rm", "--network", "none")
    assert docker(*run, "box", "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    assert docker(*run, "-i", "box", "cat", stdin="input\n") == (0, "input\n", "")
    assert docker(*run, "box", "nosuch").code == 127
    assert docker(*run, "box", "/tmp").code == 126
    assert docker(*run, "-t", "box", "sh", "-c", OWN_TERMINAL, terminal=True).code == 0


def test_a_container_in_the_background_is_entered_paused_limited_and_stopped(docker: Docker) -> None:
    script = 'trap "exit 5" TERM; echo started; while :; do sleep 0.05; done'
    assert docker("run", "-d", "--network", "none", "--name", "back", "box", "sh", "-c", script).code == 0
    assert docker("exec", "back", "sh", "-c", "cat /proc/1/comm; exit 9") == (9, "sh\n", "")
    assert docker("exec", "-it", "back", "sh", "-c", OWN_TERMINAL, terminal=True).code == 0
    assert docker("pause", "back").code == 0
    assert docker("inspect", "--format", "{{.State.Status}}", "back").out == "paused\n"
    assert docker("unpause", "back").code == 0
    assert docker("update", "--pids-limit", "77", "back").code == 0
    limits = docker("exec", "back", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null")
    assert limits.out == "77\n"
    assert docker("top", "back").code == 0
    assert docker("stats", "--no-stream", "--format", "{{.PIDs}}", "back").out.strip() in "1 2 3"
    assert docker("stop", "--time", "20", "back").code == 0
    assert docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "back").out == "exited 5\n"
    assert docker("logs", "back").out == "started\n"
    assert docker("rm", "back").code == 0


def test_privileged_containers_and_dockers_own_profile_work(docker: Docker) -> None:
    run = ("run", "--rm", "--network", "none")
    confined = docker(*run, "box", "grep", "-E", "^(Seccomp:|CapEff)", "/proc/self/status").out.split()
    assert confined == ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]
    assert docker(*run, "--privileged", "box", "grep", "Seccomp:", "/proc/self/status").out.split()[1] == "0"
