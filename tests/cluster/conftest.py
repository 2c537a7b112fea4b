"""A cluster of three lab hosts, formed once for the whole session by the commands that a user would type."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

PROJECT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
# A command that takes longer hangs, on the slowest machine.
COMMAND_S = 300


class Lab:
    """The hosts, by the commands of `deploy/lab`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._environment = {**os.environ, "SHOAL_LAB": name}

    @functools.cached_property
    def addresses(self) -> dict[str, str]:
        """Host → its address on the underlay; ask only once the hosts are up."""
        rows = [line.split() for line in self("ls").splitlines()[1:]]
        return {host: address for host, _, address, _ in rows}

    def __call__(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            [PROJECT / "deploy/lab", *argv], env=self._environment, capture_output=True, text=True, timeout=COMMAND_S
        )
        if check and done.returncode:
            raise AssertionError(f"lab {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def entering(self, host: str) -> list[str]:
        """What stands before a command that is run on a host."""
        return [str(PROJECT / "deploy/lab"), "exec", host, "--"]

    def on(
        self, host: str, *argv: str, stdin: str = "", timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, whatever its exit code."""
        return subprocess.run(
            [*self.entering(host), *argv],
            env=self._environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout_s,
        )

    def on_with(self, host: str, stdin: IO[str], *argv: str) -> None:
        """Run a command on a host with a file as its input; it must succeed."""
        subprocess.run(
            [*self.entering(host), *argv],
            env=self._environment,
            stdin=stdin,
            check=True,
            capture_output=True,
            timeout=COMMAND_S,
        )

    def shoal(self, host: str, *argv: str) -> str:
        """Run shoal on a host; it must succeed."""
        done = self.on(host, "shoal", *argv)
        assert done.returncode == 0, (
            f"{host}# shoal {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout.strip()

    def pids(self, host: str, pattern: str) -> list[str]:
        """Pids on a host, as the host sees them, of processes whose command line matches."""
        return self.on(host, "pgrep", "-f", pattern).stdout.split()

    def kill_9(self, host: str, pattern: str) -> None:
        found = self.pids(host, pattern)
        assert found, f"nothing on {host} matches {pattern}"
        self.on(host, "kill", "-9", *found)

    def curl(self, host: str, url: str) -> str:
        """What is answered; on a busy machine that may take seconds. Empty for no answer."""
        return self.on(host, "curl", "-s", "-m", "20", url).stdout.strip()

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """The tasks that should run, as `service ps` shows them."""
        out = self.shoal("n1", "service", "ps", "--filter", "desired-state=running", "--format", "{{json .}}", service)
        return [json.loads(line) for line in out.splitlines()]

    def running(self, service: str) -> list[dict[str, Any]]:
        return [task for task in self.tasks(service) if task["CurrentState"].startswith("Running")]

    def node_state(self, node: str) -> str:
        return self.shoal("n1", "node", "ls", "--filter", f"name={node}", "--format", "{{.Status}}")


def eventually(question: Callable[[], T], *, seconds: float = 120, what: str = "") -> T:
    """The first true answer. Fails with the last one when there is none in time, which is for a machine that is busy
    with much else: no test says less."""
    end = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what or 'it'} did not happen within {seconds} s; last answer: {answer!r}")
        time.sleep(0.1)


def web_image(folder: Path) -> Path:
    """A root file system as a tar: busybox and a server that tells the host name of its container."""
    root = folder / "root"
    for name in ("bin", "etc", "tmp", "www", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for (
        tool
    ) in "sh hostname httpd cat echo sleep ls ps nslookup wget nc id mkdir rm true false dd head env pwd touch".split():
        (root / "bin" / tool).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nweb:x:1000:\n")
    (root / "serve").write_text("hostname > /www/index.html\nexec httpd -f -p 80 -h /www\n")
    (root / "tmp").chmod(0o1777)
    tar = folder / "web.tar"
    subprocess.run(["tar", "-C", root, "-cf", tar, "."], check=True)
    return tar


# A busybox server that is its container's first process ignores SIGTERM: each stop would last ten seconds.
SERVE = ("-c", 'CMD ["sh", "/serve"]', "-c", "STOPSIGNAL SIGKILL")


def import_web(lab: Lab, folder: Path) -> None:
    """Give n1, and n1 alone, the image web:1."""
    with web_image(folder).open() as archive:
        lab.on_with("n1", archive, "shoal", "import", *SERVE, "-", "web:1")


def form_cluster(lab: Lab) -> None:
    """All hosts of the lab as one cluster, by the commands that a user would type."""
    lab.shoal("n1", "swarm", "init", "--advertise-addr", lab.addresses["n1"])
    token = lab.shoal("n1", "swarm", "join-token", "-q", "worker")
    for host in lab.addresses:
        if host != "n1":
            lab.shoal(host, "swarm", "join", "--token", token, f"{lab.addresses['n1']}:2377")
    for host in lab.addresses:
        eventually(lambda host=host: lab.node_state(host) == "Ready", what=f"{host} ready")


def wait_for_mesh(lab: Lab, port: int) -> None:
    """Until every host answers at a published port: hosts hear of a service's tasks a moment after its manager."""
    for host, address in lab.addresses.items():
        eventually(lambda url=f"http://{address}:{port}/", host=host: lab.curl(host, url), what=f"{host} answers")


def leftovers(name: str) -> list[str]:
    """What there is of a rack on this machine: links, mounts, cgroups, processes, files. Others may stand beside it."""
    links = [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))]
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    folders = [Path("/run/shoal-lab", name), Path("/var/lib/shoal-lab", name), Path("/run/shoal-local", name)]
    return [
        *(link for link in links if link == f"shl-{name}"[:15]),
        *(mount for mount in mounts if f"/shoal-lab/{name}/" in f"{mount}/"),
        *(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/shoal-{name}")),
        *(
            f"process {path.parts[2]}"
            for path in Path("/proc").glob("[0-9]*/cgroup")
            if _is_in(path, f"/shoal-{name}/")
        ),
        *(str(folder) for folder in folders if folder.exists()),
    ]


def _is_in(path: Path, group: str) -> bool:
    try:
        return group in path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def three_hosts(name: str, folder: Path) -> Iterator[Lab]:
    """A lab that is gone afterwards; its hosts are not yet a cluster, and have the image web:1 on n1 only."""
    lab = Lab(name)
    try:
        lab("up", "3")
        import_web(lab, folder)
        yield lab
    finally:
        for log in sorted(Path("/var/lib/shoal-lab", lab.name).glob("n*/log/*.log")):
            print(f"---- last lines of {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        lab("down", check=False)
    # What runs in a pid namespace dies with its PID 1, but not within the same moment.
    eventually(lambda: not leftovers(lab.name), what=f"nothing left of the lab {lab.name}")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts, not yet a cluster, with the image web:1 on n1 only."""
    with three_hosts(f"t{os.getpid() % 10000}", tmp_path_factory.mktemp("web")) as lab:
        yield lab


@pytest.fixture(scope="session")
def cluster(lab: Lab) -> Lab:
    """The three hosts as one cluster, n1 its manager."""
    form_cluster(lab)
    return lab


@pytest.fixture
def clean(cluster: Lab) -> Iterator[Lab]:
    """The cluster, with every service and container of the test removed afterwards and every host up and ready."""
    yield cluster
    for host in ("n1", "n2", "n3"):
        cluster("start", host, check=False)
        cluster("heal", host, check=False)
    for name in cluster.shoal("n1", "service", "ls", "-q").split():
        cluster.shoal("n1", "service", "rm", name)
    for host in ("n1", "n2", "n3"):
        eventually(lambda host=host: cluster.node_state(host) == "Ready", what=f"{host} ready again")
        eventually(
            lambda host=host: not cluster.shoal(host, "ps", "-aq", "--filter", "is-task=true"),
            what=f"no tasks on {host}",
        )
        for container in cluster.shoal(host, "ps", "-aq").split():
            cluster.shoal(host, "rm", "-f", container)
