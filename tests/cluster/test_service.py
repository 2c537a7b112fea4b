"""One service on three hosts: reached on each, healed when a host dies, known by name."""

from __future__ import annotations

import json

import pytest

from tests.cluster.conftest import Lab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def create_web(lab: Lab, *options: str, replicas: int = 6, name: str = "web") -> None:
    node_and_slot = "{{.Node.Hostname}}-{{.Task.Slot}}"
    lab.shoal(
        "n1", "service", "create", "--name", name, "--replicas", str(replicas), "--hostname", node_and_slot,
        "--restart-delay", "500ms", *options, "web:1",
    )  # fmt: skip


def answers(lab: Lab, host: str, url: str, times: int = 24) -> set[str]:
    """The hosts whose tasks answered."""
    script = f"for i in $(seq {times}); do curl -s -m 2 {url}; done"
    return {line.split("-")[0] for line in lab.on(host, "sh", "-c", script).stdout.split()}


def test_every_host_answers_for_all(clean: Lab) -> None:
    create_web(clean, "--publish", "8080:80")
    assert sorted(task["Node"] for task in clean.running("web")) == ["n1", "n1", "n2", "n2", "n3", "n3"]
    for host in ("n1", "n2", "n3"):
        url = f"http://{clean.addresses[host]}:8080/"
        eventually(lambda host=host, url=url: answers(clean, host, url) == {"n1", "n2", "n3"}, what=url)
    assert answers(clean, "n2", "http://127.0.0.1:8080/") == {"n1", "n2", "n3"}


def test_dead_host_is_replaced_and_its_return_disturbs_nobody(clean: Lab) -> None:
    create_web(clean, "--publish", "8081:80")
    clean("kill", "n3")
    eventually(lambda: clean.node_state("n3") == "Down", what="n3 down")
    eventually(lambda: sorted(t["Node"] for t in clean.running("web")) == ["n1"] * 3 + ["n2"] * 3, what="six elsewhere")
    assert answers(clean, "n1", f"http://{clean.addresses['n1']}:8081/") == {"n1", "n2"}
    kept = {task["ID"] for task in clean.running("web")}
    clean("start", "n3")
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 back")
    eventually(lambda: not clean.shoal("n3", "ps", "-q", "--filter", "is-task=true"), what="old tasks stopped on n3")
    assert {task["ID"] for task in clean.running("web")} == kept


def test_unplugged_host_keeps_its_containers_until_told(clean: Lab) -> None:
    create_web(clean, replicas=3)
    on_n3 = clean.shoal("n3", "ps", "-q", "--no-trunc")
    clean("cut", "n3")
    eventually(lambda: clean.node_state("n3") == "Down", what="n3 down")
    eventually(lambda: len(clean.running("web")) == 3 and all(t["Node"] != "n3" for t in clean.running("web")))
    assert clean.shoal("n3", "ps", "-q", "--no-trunc") == on_n3
    clean("heal", "n3")
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 back")
    eventually(lambda: not clean.shoal("n3", "ps", "-q"), what="the replaced task stopped")


def test_services_reach_each_other_by_name(clean: Lab) -> None:
    clean.shoal("n1", "network", "create", "-d", "overlay", "backend")
    try:
        create_web(clean, "--network", "backend", replicas=3)
        clean.shoal(
            "n1", "service", "create", "--name", "client", "--network", "backend", "--replicas", "2",
            "web:1", "sleep", "1000",
        )  # fmt: skip
        task = clean.running("client")[0]
        container = clean.shoal(task["Node"], "ps", "-q", "--filter", "name=client")
        container = container.split()[0]

        def hear() -> set[str]:
            # busybox's own wget crashes on names when linked statically: ask for the address, then fetch by it.
            script = (
                "a=$(nslookup web | grep -A1 '^Name' | grep -o '[0-9.]*$' | tail -1);"
                "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc $a 80 | tail -1; done"
            )
            out = clean.on(task["Node"], "shoal", "exec", container, "sh", "-c", script).stdout
            return {line.split("-")[0] for line in out.split() if line.startswith("n")}

        eventually(lambda: hear() == {"n1", "n2", "n3"}, what="answers of all tasks through the name")
        listed = clean.on(task["Node"], "shoal", "exec", container, "nslookup", "tasks.web").stdout
        assert listed.count("10.") >= 3, listed
        (seen,) = json.loads(clean.shoal("n1", "network", "inspect", "-v", "backend"))
        assert [peer["Name"].partition("-")[0] for peer in seen["Peers"]] == ["n1", "n2", "n3"]
        assert {name: len(each["Tasks"]) for name, each in seen["Services"].items()} == {"client": 2, "web": 3}
        named = clean.on(task["Node"], "shoal", "exec", container, "nslookup", "web").stdout
        assert seen["Services"]["web"]["VIP"] in named
    finally:
        for name in ("web", "client"):
            clean.on("n1", "shoal", "service", "rm", name)
        eventually(lambda: clean.on("n1", "shoal", "network", "rm", "backend").returncode == 0, what="network removed")


def test_scale_update_and_remove(clean: Lab) -> None:
    create_web(clean, replicas=2)
    clean.shoal("n1", "service", "scale", "web=5")
    assert len(clean.running("web")) == 5
    clean.shoal("n1", "service", "update", "--replicas", "1", "web")
    eventually(lambda: len(clean.tasks("web")) == 1, what="one left")
    clean.shoal("n1", "service", "update", "--env-add", "COLOUR=blue", "web")
    task = eventually(lambda: clean.running("web"))[0]
    container = clean.shoal(task["Node"], "ps", "-q", "--filter", "name=web").split()[0]
    assert "COLOUR=blue" in clean.shoal(task["Node"], "exec", container, "env")
    clean.shoal("n1", "service", "rm", "web")
    for host in ("n1", "n2", "n3"):
        eventually(lambda host=host: not clean.shoal(host, "ps", "-aq"), what=f"nothing left on {host}")


def test_pending_task_says_why(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "-d", "--name", "stuck", "--constraint", "node.labels.disk==ssd", "web:1")

    def reason() -> str:
        return clean.shoal("n1", "service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "stuck")

    eventually(
        lambda: "no suitable node (scheduling constraints not satisfied on 3 nodes)" in reason(), what="a reason"
    )
    clean.shoal("n1", "node", "update", "--label-add", "disk=ssd", "n2")
    eventually(lambda: [t["Node"] for t in clean.running("stuck")] == ["n2"], what="placed on n2")
    clean.shoal("n1", "node", "update", "--label-rm", "disk", "n2")


def test_failed_task_is_restarted_in_its_slot(clean: Lab) -> None:
    create_web(clean, replicas=1)
    task = clean.running("web")[0]
    container = clean.shoal(task["Node"], "ps", "-q", "--filter", "name=web")
    clean.shoal(task["Node"], "kill", container)
    again = eventually(lambda: [t for t in clean.running("web") if t["ID"] != task["ID"]], what="a new task")
    assert again[0]["Name"] == "web.1"


def test_drained_node_gives_its_tasks_away(clean: Lab) -> None:
    create_web(clean, replicas=3)
    clean.shoal("n1", "node", "update", "--availability", "drain", "n2")
    try:
        eventually(lambda: sorted(t["Node"] for t in clean.running("web")) in (["n1", "n1", "n3"], ["n1", "n3", "n3"]))
    finally:
        clean.shoal("n1", "node", "update", "--availability", "active", "n2")


def test_global_service_runs_once_on_every_node(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "--name", "each", "--mode", "global", "web:1")
    assert sorted(task["Node"] for task in clean.running("each")) == ["n1", "n2", "n3"]
