"""`service inspect`: documents, templates, and the text for people."""

from __future__ import annotations

import json

import pytest

from shoal.v1 import types_pb2
from tests.unit.cli.manager import SECOND, Manager, Shell


@pytest.fixture(autouse=True)
def web(manager: Manager) -> types_pb2.Service:
    service = types_pb2.Service(meta=types_pb2.Meta(id="svc1"), image_digest="sha256:1")
    spec, container = service.spec, service.spec.task.container
    spec.name, spec.mode, spec.replicas = "web", types_pb2.SERVICE_MODE_REPLICATED, 3
    spec.labels["tier"] = "web"
    spec.update.parallelism, spec.update.order, spec.update.delay_ns = 1, types_pb2.UPDATE_ORDER_STOP_FIRST, 10 * SECOND
    spec.task.restart.condition, spec.task.restart.delay_ns = types_pb2.RESTART_CONDITION_ANY, 5 * SECOND
    spec.task.placement.constraints.append("node.role==worker")
    spec.task.limits.nano_cpus, spec.task.limits.memory_bytes = SECOND // 2, 64 << 20
    container.image = "web:1"
    container.env.append("A=1")
    container.mounts.add(type=types_pb2.MOUNT_TYPE_VOLUME, source="data", target="/data")
    service.ports.add(protocol=1, target=80, published=8080, mode=types_pb2.PUBLISH_MODE_INGRESS)
    manager.services["web"] = service
    return service


def test_documents_of_what_is_found(shoal: Shell) -> None:
    ran = shoal("service", "inspect", "web", "none")
    assert [each["Spec"]["Name"] for each in json.loads(ran.out)] == ["web"]
    assert (ran.code, ran.err) == (1, "Error: No such service: none\n")


def test_what_tasks_get_of_their_hosts_is_shown_where_it_was_asked_for(shoal: Shell, web: types_pb2.Service) -> None:
    asked = "{{.Spec.TaskTemplate.ContainerSpec.Devices}} {{.Spec.TaskTemplate.LogDriver.Name}}"
    container = web.spec.task.container
    assert "Privileged" not in shoal("service", "inspect", "web").out
    container.privileged, container.log.driver = True, "local"
    container.devices.add(source="/dev/a")
    assert shoal.lines("service", "inspect", "-f", asked, "web") == [
        "[map[CgroupPermissions:rwm PathInContainer:/dev/a PathOnHost:/dev/a]] local"
    ]


def test_template(shoal: Shell) -> None:
    assert shoal.lines("service", "inspect", "-f", "{{.Spec.Mode.Replicated.Replicas}}", "web") == ["3"]
    assert shoal("service", "inspect", "-f", "{{.ID}}", "--pretty", "web").code == 1


def test_text_for_people(shoal: Shell, web: types_pb2.Service) -> None:
    out = shoal("service", "inspect", "--pretty", "web").out
    for piece in (
        "ID:\t\tsvc1\nName:\t\tweb\nLabels:\n tier=web\n",
        "Service Mode:\tReplicated\n Replicas:\t3 (1 running)\n",
        "Placement:\n Constraints:\t[node.role==worker]\n",
        "UpdateConfig:\n Parallelism:\t1\n Delay:\t\t10s\n Update order:      stop-first\n",
        "RestartPolicy:\n Condition:\tany\n Delay:\t\t5s\n",
        "ContainerSpec:\n Image:\t\tweb:1\n Digest:\tsha256:1\n Env:\t\tA=1\n",
        "Mounts:\n data -> /data\n",
        "Resources:\n Limits:\n  CPU:\t\t0.5\n  Memory:\t64MiB\n",
        "Endpoint Mode:\tvip\nPorts:\n *:8080->80/tcp\n",
    ):
        assert piece in out
    web.spec.task.placement.ClearField("constraints")
    web.spec.task.placement.max_per_node = 2
    assert "Placement:\n Max Replicas Per Node:\t2\n" in shoal("service", "inspect", "--pretty", "web").out
