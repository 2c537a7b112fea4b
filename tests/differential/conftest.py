"""Docker beside Shoal: the same lines typed at both, on two lab hosts that differ in nothing else.

Debian's dockerd and its own client (20.10) run on the second host. What both say is compared after `plain` took out
what differs by nature: ids, times, the name of the program. Of two sentences on stderr ours may go on with a hint.
`NEWER` has what later releases of Docker say otherwise than this one, and Shoal with them; a `Difference` of a case is
one that we want, with its reason.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.conftest import Lab, eventually, leftovers
from tests.kernel.container.conftest import busybox

IMAGE = ("-c", 'CMD ["/bin/sh"]', "-c", "ENV IMAGE=yes", "-", "busybox")
DOCKER = "/usr/bin/docker -H unix:///run/docker.sock"
# In each host: one process that runs every script, each in a new folder, as a shell would.
RUNNER = """
import json, subprocess, sys, tempfile
for line in sys.stdin:
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(["bash", "-c", json.loads(line)], cwd=folder, capture_output=True,
                                  stdin=subprocess.DEVNULL, timeout=250)
        except subprocess.TimeoutExpired as late:
            done = late
    said = [(each or b"").decode(errors="replace") for each in (done.stdout, done.stderr)]
    if not hasattr(done, "returncode"):
        said[1] += "[no end]"
    print(json.dumps(said), flush=True)
"""
# Each command line tells its exit code, so that a script may have many.
ENGINE = 'engine() { %s "$@"; local code=$?; echo "[exit $code]" >&2; return $code; }\n'
# `await COMMAND …` goes on once that succeeds, as `said CONTAINER WORD` does where the log has it.
AWAIT = """
await() { until "$@"; do sleep 0.1; done >/dev/null 2>&1; }
said() { engine logs "$1" 2>&1 | grep -q "$2"; }
"""
TIDY = """
for each in $(%s ps -aq); do %s rm -fv $each; done
for each in $(%s volume ls -q); do %s volume rm -f $each; done
for each in $(%s network ls --format '{{.Name}}'); do
    case $each in bridge|host|none) ;; *) %s network rm $each ;; esac
done
"""
NATURE = (
    (r"\b[0-9a-f]{64}\b", "<id>"),
    # Whatever looks like an id is one: of twelve digits one in 280 has no letter.
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z| [+-]\d{4} \w+|[+-]\d\d:\d\d)?", "<time>"),
    (r"(\d+ \w+|Less than a second|About an? \w+) ago", "<ago>"),
    (r"Up (\d+ \w+|Less than a second|About an? \w+)", "Up <for>"),
    (r"(?m)^time=.*\n", ""),
    (r"(?m)^(docker|shoal|Error): ", ""),
    # Which of its flags a client reads while it parses the line, and which later, is not a promise.
    (r'invalid argument ".*" for ".*" flag: ', ""),
    (r"Error response from daemon: ", ""),
    (r"(?m)^See 'docker.*--help'\.\n", ""),
    (r"OCI runtime exec failed: exec failed: (unable to start container process: )?", ""),
    (
        r"failed to create shim task: OCI runtime create failed: runc create failed: (unable to start .*? process: )?",
        "",
    ),
    (r"(?m): unknown\.?$", ""),
    (r"(?s)\n+Usage: .*?(?=\n\[exit|\Z)", ""),
    (r"(?m)^Run 'shoal .*--help' for more information\n", ""),
    (r"\bdocker\b", "shoal"),
    (r"[ \t]+", " "),
)
# Docker 20.10's words, and those of 2026.
NEWER = (
    (
        r"You cannot remove a running container <id>\. Stop .*",
        'cannot remove container ".*": container is running: stop the container before removing or force remove',
    ),
    (r'"(shoal [\w ]+)" (requires|accepts) (?:exactly )?(.*)\.', r"'\1' \2 \3"),
    ("Conflicting options: -a and -d", "conflicting options: cannot specify both --attach and --detach"),
    (r"Conflicting options: --restart and --rm\.?", "conflicting options: cannot specify both --restart and --rm"),
    (r"No such container:path: (\w+):(.*)", r"Could not find the file \2 in container \1"),
    (r"(?m)^No such volume: (\w+)", r"get \1: no such volume"),
    (r"(?m)^failed to rename container named .*\n", ""),
    (r'template parsing error: template: :\d+:\d+: executing "" at', "template: executing at"),
    (r"(?m)^Invalid filter 'status=(.*)'", r"invalid value '\1' for filter 'status'"),
    (r"no such container nosuch", "No such container: nosuch"),
    (r"Cannot kill container: nosuch: ", ""),
    (r"conflicting options: hostname and the network mode", "conflicting options: hostname and the container type"),
    (r"driver failed programming external connectivity on endpoint \w+ \(<id>\): ", ""),
    (r'create (.*): "\1" includes invalid .*', r"volume name '\1' includes invalid characters"),
    (r"invalid mount config for type \"volume\": invalid specification: destination", "destination"),
    (r"create \w+: (invalid option)", r"\1"),
    (r'Error parsing reference: ".*" is not a valid repository/tag: ', ""),
    (r"repository name must be lowercase", r"repository name \(.*\) must be lowercase"),
    (r"(?m)^run is not a valid change command", "RUN is not a valid change command"),
    # We publish at the host's IPv4 addresses.
    (r", :::\d+(-\d+)?->[\d/-]+\w+", ""),
    (r"(?m)^(\d+/\w+ -> )?:::(\d+|<port>)\n", ""),
)


class Difference(NamedTuple):
    """That we answer `ours` where Docker answers `theirs` (a pattern), and why."""

    theirs: str
    ours: str
    why: str


class Said(NamedTuple):
    """What a script wrote."""

    out: str
    err: str

    def plain(self) -> Said:
        return Said(_replaced(self.out), _replaced(self.err))


class Host:
    """One lab host with one of the engines."""

    def __init__(self, lab: Lab, name: str, program: str) -> None:
        self._program = program
        argv = [str(Path(__file__).parents[2] / "deploy/lab"), "exec", name, "--", "python3", "-u", "-c", RUNNER]
        environment = {**os.environ, "SHOAL_LAB": lab.name}
        self._process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def type(self, script: str) -> Said:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(ENGINE % self._program + AWAIT + script) + "\n")
        self._process.stdin.flush()
        return Said(*json.loads(self._process.stdout.readline()))

    def tidy(self) -> None:
        self.type(TIDY % ((self._program,) * 6))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Pair:
    """Both engines."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # Each one's /var/lib/shoal, as this host has it.
        self.disks = [Path("/var/lib/shoal-lab") / lab.name / name / "shoal" for name in ("n1", "n2")]
        self.shoal = Host(lab, "n1", "shoal")
        self.docker = Host(lab, "n2", DOCKER)
        self._threads = ThreadPoolExecutor(2)

    def type(self, script: str) -> tuple[Said, Said]:
        """What ours and docker's answer, plainly."""
        ours, theirs = self._threads.map(lambda host: host.type(script).plain(), (self.shoal, self.docker))
        return ours, theirs

    def tidy(self) -> None:
        list(self._threads.map(Host.tidy, (self.shoal, self.docker)))

    def close(self) -> None:
        self.shoal.close()
        self.docker.close()
        self._threads.shutdown()


def check_same(ours: Said, theirs: Said, differences: tuple[Difference, ...] = ()) -> None:
    """That both said the same, but for `differences`, each of which must be there."""
    out, err = (_replaced(each, NEWER) for each in theirs)
    for each in differences:
        count = len(re.findall(each.theirs, out + err))
        assert count, f"docker does not say {each.theirs!r} (any more): {out}{err}"
        out, err = (re.sub(each.theirs, each.ours, text) for text in (out, err))
    assert ours.out == out
    mine, other = _sentences(ours.err), _sentences(err)
    assert len(mine) == len(other) and all(map(_alike, mine, other)), f"ours:\n{ours.err}\ndocker's:\n{err}"


def _replaced(text: str, rules: tuple[tuple[str, str], ...] = NATURE) -> str:
    for pattern, word in rules:
        text = re.sub(pattern, word, text)
    return text


def _sentences(text: str) -> list[str]:
    return [line.strip().rstrip(".").lower() for line in text.splitlines() if line.strip()]


def _alike(mine: str, other: str) -> bool:
    """`other` may be a pattern where `NEWER` made it one."""
    return mine.startswith(other) or re.match(other, mine) is not None


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The two, with the same image; skipped where there is no dockerd that starts."""
    if not Path("/usr/sbin/dockerd").exists() or not Path("/usr/bin/docker").exists():
        pytest.skip("Debian's docker.io is not installed: nothing to compare with")
    lab = Lab(f"d{os.getpid() % 10000}")
    tar = tmp_path_factory.mktemp("image") / "busybox.tar"
    tar.write_bytes(busybox())
    try:
        lab("up", "2")
        _start_docker(lab)
        for host, program in (("n1", ["shoal"]), ("n2", DOCKER.split())):
            with tar.open() as archive:
                lab.on_with(host, archive, *program, "import", *IMAGE)
        pair = Pair(lab)
        yield pair
        pair.tidy()
        pair.close()
        lab.on("n2", "sh", "-c", "kill $(cat /run/docker.pid)")
    finally:
        lab("down", check=False)
    eventually(lambda: not leftovers(lab.name), seconds=20, what=f"nothing left of the lab {lab.name}")


def _start_docker(lab: Lab) -> None:
    lab.on("n2", "sh", "-c", "dockerd --data-root /var/lib/shoal/docker -H unix:///run/docker.sock "
           "--exec-root /run/docker -p /run/docker.pid >/var/log/dockerd.log 2>&1 &")  # fmt: skip
    try:
        eventually(lambda: lab.on("n2", *DOCKER.split(), "info").returncode == 0, seconds=120, what="dockerd answers")
    except AssertionError:
        pytest.skip(f"dockerd does not start here: {lab.on('n2', 'tail', '-n', '1', '/var/log/dockerd.log').stdout}")


@pytest.fixture
def pair(engines: Pair) -> Iterator[Pair]:
    """Both, tidied up afterwards."""
    yield engines
    engines.tidy()
