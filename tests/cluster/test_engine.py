"""What one host does, asked for from another: health checks of services, and every command on any node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import SERVE, Lab, eventually, web_image

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CHECK = ("--health-interval", "200ms", "--health-cmd")


def states(lab: Lab, service: str) -> list[str]:
    return [task["CurrentState"].split()[0] for task in lab.tasks(service) if task["DesiredState"] == "Running"]


def test_a_task_counts_only_once_it_is_healthy_and_is_replaced_when_it_is_not(clean: Lab) -> None:
    clean.shoal(
        "n1", "service", "create", "-d", "--name", "web", "-p", "8080:80", "--constraint", "node.hostname==n2",
        *CHECK, "test -e /tmp/ok", "--health-retries", "3", "--health-start-period", "300s",
        "--health-start-interval", "200ms", "web:1",
    )  # fmt: skip
    eventually(lambda: states(clean, "web") == ["Starting"], what="a task that is not healthy yet")
    [container] = eventually(lambda: clean.shoal("n2", "ps", "-q").split(), what="its container")
    eventually(lambda: "(health: starting)" in clean.shoal("n1", "--node", "n2", "ps"), what="its health in ps")
    assert clean.on("n1", "curl", "-s", "-m", "2", "http://127.0.0.1:8080").returncode != 0
    clean.shoal("n1", "--node", "n2", "exec", container, "touch", "/tmp/ok")
    eventually(lambda: states(clean, "web") == ["Running"], what="a healthy task")
    eventually(lambda: clean.on("n1", "curl", "-s", "-m", "2", "http://127.0.0.1:8080").returncode == 0, what="answers")
    clean.shoal("n1", "--node", "n2", "exec", container, "rm", "/tmp/ok")
    eventually(
        lambda: "task: unhealthy container" in clean.shoal("n1", "service", "ps", "--no-trunc", "web"),
        what="a task that failed for it",
    )
    eventually(lambda: states(clean, "web") == ["Starting"], what="another in its place")


def test_every_command_reaches_any_node(clean: Lab, tmp_path: Path) -> None:
    there = ("n1", "--node", "n3")
    with web_image(tmp_path).open() as archive:
        clean.on_with("n1", archive, "shoal", "--node", "n3", "import", *SERVE, "-", "web:1")
    clean.shoal(*there, "run", "-d", "--name", "web", "web:1")
    clean.shoal(*there, "pause", "web")
    assert "(Paused)" in clean.shoal(*there, "ps")
    clean.shoal(*there, "unpause", "web")
    clean.shoal(*there, "rename", "web", "site")
    clean.shoal(*there, "restart", "-t", "0", "site")
    clean.shoal(*there, "update", "--pids-limit", "50", "site")
    eventually(lambda: "httpd" in clean.shoal(*there, "top", "site", "-o", "pid,args"), what="it serves again")
    assert "site" in clean.shoal(*there, "stats", "--no-stream")
    clean.shoal(*there, "network", "create", "backend")
    clean.shoal(*there, "network", "connect", "backend", "site")
    assert "site" in clean.shoal(*there, "network", "inspect", "-f", "{{json .Containers}}", "backend")
    clean.shoal(*there, "network", "disconnect", "backend", "site")
    networks = clean.shoal("n1", "network", "ls", "-A", "--filter", "driver=bridge", "--format", "{{.Node}} {{.Name}}")
    assert networks.splitlines() == ["n1 bridge", "n2 bridge", "n3 backend", "n3 bridge"]
    assert "backend" in clean.shoal(*there, "network", "prune", "-f")
    assert clean.shoal("n1", "ps", "-A", "--format", "{{.Node}} {{.Names}}").splitlines() == ["n3 site"]
    everywhere = ("-A", "--format", "{{.Node}}")
    assert "n3" in clean.shoal("n1", "images", *everywhere).split()
    assert clean.shoal("n1", "stats", "--no-stream", *everywhere).split() == ["n3"]
    clean.shoal("n2", "volume", "create", "data")
    assert clean.shoal("n1", "volume", "ls", *everywhere).split() == ["n2"]
    clean.shoal("n2", "volume", "rm", "data")
    told = clean.shoal("n1", "events", "-A", "--until", "0s", "--filter", "type=volume")
    assert "node=n2" in told
    assert "node=n3" not in told
    clean.shoal(*there, "cp", "site:/serve", "/tmp/serve")
    clean.shoal(*there, "cp", "/tmp/serve", "site:/copied")
    assert "A /copied" in clean.shoal(*there, "diff", "site").splitlines()
    image = clean.shoal(*there, "commit", "site", "site:2").strip()
    assert image in clean.shoal("n3", "images", "--no-trunc")
    events = clean.shoal(*there, "events", "--until", "0s", "--filter", "container=site", "--format", "{{.Action}}")
    assert {"rename", "restart", "commit"} <= set(events.split())
    clean.shoal(*there, "rm", "-f", "site")
    clean.shoal(*there, "rmi", "site:2")
