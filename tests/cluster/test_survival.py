"""What kill -9 must not break: agents, managers, keepers, whole hosts."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Lab, eventually, wait_for_mesh

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

DAEMONS = {"agent": "bin/shoal-agent", "manager": "bin/shoal-manager", "keeper": "agent.runtime.daemon"}


def container_pids(lab: Lab, host: str) -> set[str]:
    ids = lab.shoal(host, "ps", "-q", "--no-trunc").split()
    return {lab.shoal(host, "inspect", "-f", "{{.State.Pid}}", each) for each in ids}


def wait_for_answers(lab: Lab) -> None:
    eventually(lambda: lab.on("n1", "shoal", "node", "ls").returncode == 0, what="the manager answers")
    for host in ("n1", "n2", "n3"):
        eventually(lambda host=host: lab.on(host, "shoal", "ps").returncode == 0, what=f"the agent of {host} answers")
        eventually(lambda host=host: lab.node_state(host) == "Ready", what=f"{host} ready")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_containers_survive_the_death_of(clean: Lab, daemon: str) -> None:
    clean.shoal("n1", "service", "create", "--name", "web", "--replicas", "3", "-p", "8090:80", "web:1")
    by_hand = clean.shoal(
        "n1", "run", "-d", "--name", "hand", "web:1", "sh", "-c", "while :; do echo tick; sleep 0.2; done"
    )
    wait_for_mesh(clean, 8090)
    before = {host: container_pids(clean, host) for host in ("n1", "n2", "n3")}
    tasks = {task["ID"] for task in clean.running("web")}
    clean.kill_9("n1", DAEMONS[daemon])
    wait_for_answers(clean)
    assert {host: container_pids(clean, host) for host in ("n1", "n2", "n3")} == before
    assert {task["ID"] for task in clean.running("web")} == tasks
    assert clean.curl("n1", f"http://{clean.addresses['n1']}:8090/")
    # Logs go on, and the exit code of a container that outlived its daemon is still learnt.
    lines = len(clean.shoal("n1", "logs", by_hand).splitlines())
    eventually(lambda: len(clean.shoal("n1", "logs", by_hand).splitlines()) > lines, what="logs go on")
    clean.shoal("n1", "kill", "hand")
    assert clean.shoal("n1", "wait", "hand") == "137"


def test_all_daemons_of_a_host_die_at_once(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "--name", "web", "--replicas", "3", "web:1")
    before = container_pids(clean, "n1")
    clean.kill_9("n1", "|".join(DAEMONS.values()))
    wait_for_answers(clean)
    assert container_pids(clean, "n1") == before
    clean.shoal("n1", "service", "scale", "web=6")
    assert len(clean.running("web")) == 6


def test_rebooted_host_runs_its_tasks_without_a_manager(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "--name", "web", "--replicas", "3", "web:1")
    task = next(t["ID"] for t in clean.running("web") if t["Node"] == "n3")
    clean("cut", "n3")
    clean("kill", "n3")
    clean.on("n1", "touch", "/run/hold")
    try:
        clean.kill_9("n1", "bin/shoal-agent|bin/shoal-manager")
        clean("start", "n3")
        eventually(
            lambda: task in clean.shoal("n3", "ps", "--no-trunc", "--format", "{{.Names}}"), what="the task runs again"
        )
    finally:
        clean.on("n1", "rm", "-f", "/run/hold")
    wait_for_answers(clean)


def test_nothing_doubled_after_the_manager_dies_in_the_middle(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "-d", "--name", "many", "--replicas", "12", "web:1", "sleep", "1000")
    clean.kill_9("n1", DAEMONS["manager"])
    wait_for_answers(clean)
    eventually(lambda: len(clean.running("many")) == 12, what="twelve running")
    slots = sorted(task["Name"] for task in clean.tasks("many"))
    assert slots == sorted(f"many.{slot}" for slot in range(1, 13))
    containers = [name for host in ("n1", "n2", "n3") for name in clean.shoal(host, "ps", "-q").split()]
    assert len(containers) == 12
