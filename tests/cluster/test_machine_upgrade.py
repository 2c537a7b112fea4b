"""A cluster that serves gets another version, and the one before again, while its containers and its traffic go on."""

from __future__ import annotations

import shutil
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import PROJECT, eventually, import_web
from tests.cluster.test_machine import Desk, agents, bare_hosts

PORT = 8080
# The first fixture makes the artefact and a cluster.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Two nodes that serve."""
    with bare_hosts(2, tmp_path_factory.mktemp("upgrade")) as desk:
        code, said = desk.run("apply")
        assert code == 0, said
        import_web(desk.lab, desk.folder)
        # What it was asked before it was told to end it still answers.
        ending = ("--stop-signal", "SIGTERM", "--stop-grace-period", "2s")
        words = ("--replicas", "2", "-p", f"{PORT}:80", "--name", "web", *ending)
        desk.lab.shoal("n1", "service", "create", "-d", *words, "web:1")
        eventually(lambda: len(desk.lab.running("web")) == 2, what="two replicas")
        yield desk


def newer(folder: Path) -> Path:
    """A copy of Shoal's sources that differs in a comment: another version."""
    for room in ("shoal", "manager", "agent", "machine", "cli"):
        shutil.copytree(PROJECT / room, folder / room)
    with (folder / "shoal" / "names.py").open("a") as file:
        file.write("# newer\n")
    return folder


class Visitor:
    """Asks the published port of every host over and over, and notes what is not answered."""

    def __init__(self, desk: Desk) -> None:
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(each,)) for each in desk.lab.addresses.values()]
        self.asked = 0
        self.failed: list[str] = []

    def __enter__(self) -> Visitor:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str) -> None:
        # Some hundred connections in a second find what takes milliseconds.
        while not self._enough.wait(0.005):
            self.asked += 1
            try:
                # On a busy machine an answer may take seconds; one that never comes, or is refused, has failed.
                with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=20) as answer:
                    answer.read()
            except OSError as error:
                self.failed.append(f"{address}: {error}")


def containers(desk: Desk) -> dict[str, str]:
    """Each host's containers with the pids of their processes."""
    script = "for c in $(shoal ps -q); do shoal inspect -f '{{.ID}} {{.State.Pid}}' $c; done"
    return {name: desk.lab.on(name, "sh", "-c", script).stdout for name in desk.lab.addresses}


def versions(desk: Desk) -> set[str]:
    """What runs as agents and managers, and what is current."""
    found = set()
    for name in desk.lab.addresses:
        of_manager = "tr -cd '0-9,' < /run/shoal/manager.pid 2> /dev/null | cut -d, -f1"
        pids = f"cut -d' ' -f2 /run/shoal/supervisor.pids; {of_manager}"
        for pid in desk.lab.on(name, "sh", "-c", pids).stdout.split():
            found.add(desk.lab.on(name, "sh", "-c", f"tr '\\0' ' ' < /proc/{pid}/cmdline").stdout.split("/")[3])
        found.add(desk.lab.on(name, "readlink", "/opt/shoal/current").stdout.strip())
    return found


def test_containers_and_traffic_go_on_through_an_upgrade_and_traffic_through_a_drained_way_back(
    nodes: Desk, tmp_path: Path
) -> None:
    """Of two nodes, the first one that is drained leaves all tasks to the second, which is drained after it."""
    (old,) = versions(nodes)
    before, running = agents(nodes), containers(nodes)
    with Visitor(nodes) as visitor:
        code, said = nodes.run("upgrade", program=newer(tmp_path))
        assert code == 0, said
        (new,) = versions(nodes)
        assert new != old
        code, said = nodes.run("upgrade", program=tmp_path)
        assert (code, said.count("as wanted")) == (0, 2), said
        assert containers(nodes) == running
        code, said = nodes.run("rollback", "--drain")
        assert code == 0, said
    assert versions(nodes) == {old}
    moved = nodes.lab.shoal("n1", "service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}}", "web")
    assert set(moved.splitlines()) == {"n1"}
    assert agents(nodes) != before
    assert visitor.asked > 20
    assert not visitor.failed, f"{len(visitor.failed)} of {visitor.asked}: {visitor.failed[:9]}"
    available = nodes.lab.shoal("n1", "node", "ls", "--format", "{{.Availability}}")
    assert set(available.splitlines()) == {"Active"}


def test_a_version_that_does_not_start_is_taken_back_and_nobody_else_gets_it(nodes: Desk, tmp_path: Path) -> None:
    (old,) = versions(nodes)
    running = containers(nodes)
    broken = newer(tmp_path)
    (broken / "agent" / "daemon.py").write_text('raise SystemExit("broken")\n')
    code, said = nodes.run("upgrade", program=broken)
    assert code == 1, said
    assert "it went back" in said, said
    assert "not begun, because n1 failed" in said
    assert versions(nodes) == {old}
    assert containers(nodes) == running
