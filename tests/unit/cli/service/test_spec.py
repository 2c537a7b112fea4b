"""From `service create` and `service update` to the spec that is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.v1 import control_pb2, types_pb2
from shoal.v1.types_pb2 import ServiceSpec
from tests.unit.cli.manager import SECOND, Manager, Shell


def create(shoal: Shell, *words: str) -> ServiceSpec:
    shoal.lines("service", "create", "-d", *words)
    return shoal.manager.of(control_pb2.CreateServiceRequest)[-1].spec


def update(shoal: Shell, *words: str) -> ServiceSpec:
    assert shoal.lines("service", "update", "-d", *words, "web") == ["web"]
    return shoal.manager.of(control_pb2.UpdateServiceRequest)[-1].spec


def test_defaults_are_docker_s(shoal: Shell) -> None:
    spec = create(shoal, "web:1")
    assert (spec.name, spec.replicas, spec.task.container.image) == ("", 1, "web:1")
    assert spec.mode == types_pb2.SERVICE_MODE_REPLICATED
    assert spec.endpoint_mode == types_pb2.ENDPOINT_MODE_VIP
    assert spec.task.restart == types_pb2.RestartPolicy(condition=types_pb2.RESTART_CONDITION_ANY, delay_ns=5 * SECOND)
    assert spec.update == types_pb2.UpdatePolicy(parallelism=1, order=types_pb2.UPDATE_ORDER_STOP_FIRST)


def test_every_value_arrives(shoal: Shell) -> None:
    spec = create(
        shoal, "--name", "web", "--replicas", "6", "--replicas-max-per-node", "2", "--entrypoint", "sh -c",
        "--hostname", "h", "-u", "1:2", "-w", "/w", "--init", "--read-only", "-t", "--stop-signal", "INT",
        "--stop-grace-period", "3s", "--limit-cpu", "1.5", "--limit-memory", "64m", "--limit-pids", "9",
        "--reserve-cpu", ".5", "--reserve-memory", "32m", "--restart-condition", "on-failure", "--restart-delay", "0s",
        "--restart-max-attempts", "4", "--restart-window", "1m", "--update-parallelism", "0", "--update-delay", "2s",
        "--update-order", "start-first", "--endpoint-mode", "dnsrr", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN",
        "web:1", "a", "--b",
    )  # fmt: skip
    container = spec.task.container
    assert (spec.name, spec.replicas, spec.task.placement.max_per_node) == ("web", 6, 2)
    assert (list(container.entrypoint), container.entrypoint_set) == (["sh", "-c"], True)
    assert list(container.args) == ["a", "--b"]
    assert (container.hostname, container.user, container.workdir) == ("h", "1:2", "/w")
    assert (container.init, container.read_only, container.tty) == (True, True, True)
    assert (container.stop_signal, container.stop_grace_ns) == ("INT", 3 * SECOND)
    assert spec.task.limits == types_pb2.Resources(nano_cpus=3 * SECOND // 2, memory_bytes=64 << 20, pids=9)
    assert spec.task.reservations == types_pb2.Resources(nano_cpus=SECOND // 2, memory_bytes=32 << 20)
    assert spec.task.restart == types_pb2.RestartPolicy(
        condition=types_pb2.RESTART_CONDITION_ON_FAILURE, delay_ns=0, max_attempts=4, window_ns=60 * SECOND
    )
    assert spec.update == types_pb2.UpdatePolicy(
        parallelism=0, delay_ns=2 * SECOND, order=types_pb2.UPDATE_ORDER_START_FIRST
    )
    assert spec.endpoint_mode == types_pb2.ENDPOINT_MODE_DNSRR
    assert (list(container.cap_add), list(container.cap_drop)) == (["NET_ADMIN"], ["CHOWN"])


def test_every_list_arrives(shoal: Shell, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=1\nB=2\n")
    spec = create(
        shoal, "-e", "B=3", "--env-file", f"{tmp_path}/env", "-l", "tier=web", "--container-label", "c=d", "-p",
        "8080:80", "--publish", "published=53,target=53,protocol=udp,mode=host", "--mount",
        "type=volume,src=data,dst=/data", "--network", "name=back,alias=w", "--constraint", "node.role==worker",
        "--placement-pref", "spread=node.labels.zone", "--group", "adm", "--host", "db:10.0.0.5", "--dns", "9.9.9.9",
        "--sysctl", "net.core.somaxconn=9", "--ulimit", "nofile=1:2", "web:1",
    )  # fmt: skip
    container = spec.task.container
    assert list(container.env) == ["A=1", "B=3"]
    assert (dict(spec.labels), dict(container.labels)) == ({"tier": "web"}, {"c": "d"})
    assert list(spec.ports) == [
        types_pb2.Port(
            protocol=types_pb2.PORT_PROTOCOL_TCP, target=80, published=8080, mode=types_pb2.PUBLISH_MODE_INGRESS
        ),
        types_pb2.Port(protocol=types_pb2.PORT_PROTOCOL_UDP, target=53, published=53, mode=types_pb2.PUBLISH_MODE_HOST),
    ]
    assert [(each.source, each.target) for each in container.mounts] == [("data", "/data")]
    assert list(spec.task.networks) == [types_pb2.NetworkAttachment(network="back", aliases=["w"])]
    assert list(spec.task.placement.constraints) == ["node.role==worker"]
    assert list(spec.task.placement.preferences) == ["spread=node.labels.zone"]
    assert (list(container.groups), list(container.hosts), list(container.dns)) == (
        ["adm"],
        ["db:10.0.0.5"],
        ["9.9.9.9"],
    )
    assert dict(container.sysctls) == {"net.core.somaxconn": "9"}
    assert list(container.ulimits) == [types_pb2.Ulimit(name="nofile", soft=1, hard=2)]


def test_tasks_get_devices_and_rights_of_their_hosts(shoal: Shell) -> None:
    spec = create(
        shoal, "--device", "/dev/net/tun", "--device", "/dev/sda:/dev/x:r", "--device-cgroup-rule", "c 1:3 r",
        "--privileged", "--security-opt", "no-new-privileges", "--userns", "auto", "--pid", "host", "--ipc", "host",
        "--shm-size", "1m", "--oom-score-adj", "-5", "--runtime", "crun", "--log-driver", "local", "--log-opt",
        "max-size=1m", "--dns-search", "x.test", "--dns-option", "ndots:2", "web:1",
    )  # fmt: skip
    container = spec.task.container
    assert [(each.source, each.target, each.permissions) for each in container.devices] == [
        ("/dev/net/tun", "", ""),
        ("/dev/sda", "/dev/x", "r"),
    ]
    assert list(container.device_rules) == ["c 1:3 r"]
    assert (container.privileged, container.no_new_privileges) == (True, True)
    assert (container.userns_mode, container.pid_mode, container.ipc_mode) == ("auto", "host", "host")
    assert (container.shm_size_bytes, container.oom_score_adj, container.runtime) == (1 << 20, -5, "crun")
    assert (container.log.driver, dict(container.log.options)) == ("local", {"max-size": "1m"})
    assert (list(container.dns_search), list(container.dns_options)) == (["x.test"], ["ndots:2"])


def test_global_has_no_replicas(shoal: Shell) -> None:
    spec = create(shoal, "--mode", "global", "web:1")
    assert (spec.mode, spec.replicas) == (types_pb2.SERVICE_MODE_GLOBAL, 0)
    ran = shoal("service", "create", "--mode", "global", "--replicas", "2", "web:1")
    assert ran.code == 1
    assert "replicas can only be used with replicated mode" in ran.err


def test_no_patience_at_all_is_not_the_default(shoal: Shell) -> None:
    assert create(shoal, "--stop-grace-period", "0s", "web:1").task.container.stop_grace_ns == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--log-opt", "max-size"), 1, "invalid log opt 'max-size'"),
        (("--pid", "container:db"), 125, "a service cannot join a container's namespace: container:db"),
        (("--device", ":"), 125, "invalid device specification"),
        (("--health-cmd", "true", "--no-healthcheck"), 1, "--no-healthcheck conflicts with --health-* options"),
        (("--secret", "s"), 125, "flag --secret"),
        (("--update-failure-action", "pause"), 125, "flag --update-failure-action"),
        (("--replica", "2"), 125, "unknown flag: --replica"),
        (("--replicas", "-1"), 125, 'parsing "-1"'),
        (("--mode", "replicated-job"), 1, "service mode replicated-job is not supported yet"),
        (("--mode", "some"), 1, "unknown mode: some"),
        (("--restart-condition", "never"), 1, '"never" is unknown'),
        (("--entrypoint", "sh '"), 125, "cannot be read as a command"),
        (("--publish", "0.0.0.0:80:80"), 125, "leave the address out"),
        (("--stop-signal", "SIGNONE"), 1, "Invalid signal: SIGNONE"),
    ],
)
def test_what_cannot_be_is_refused(
    shoal: Shell, manager: Manager, words: tuple[str, ...], code: int, told: str
) -> None:
    ran = shoal("service", "create", *words, "web:1")
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert not manager.asked


@pytest.fixture
def web(manager: Manager) -> types_pb2.Service:
    """A service with one of everything that can be changed."""
    service = types_pb2.Service(meta=types_pb2.Meta(id="svc1", version=20))
    spec, container = service.spec, service.spec.task.container
    spec.name, spec.mode, spec.replicas = "web", types_pb2.SERVICE_MODE_REPLICATED, 3
    container.image, container.read_only, container.init = "web:1", True, True
    container.env.extend(["A=1", "B=2"])
    spec.labels["tier"] = "web"
    spec.ports.add(protocol=types_pb2.PORT_PROTOCOL_TCP, target=80, published=8080, mode=types_pb2.PUBLISH_MODE_INGRESS)
    container.mounts.add(type=types_pb2.MOUNT_TYPE_VOLUME, source="data", target="/data")
    container.cap_drop.append("CHOWN")
    spec.task.networks.add(network="back")
    spec.task.placement.constraints.append("node.role==worker")
    manager.services["web"] = service
    return service


def test_update_of_nothing_changes_nothing(shoal: Shell, manager: Manager, web: types_pb2.Service) -> None:
    assert update(shoal) == web.spec
    asked = manager.of(control_pb2.UpdateServiceRequest)[-1]
    assert (asked.service, asked.version) == ("svc1", 20)


@pytest.mark.usefixtures("web")
def test_update_adds_replaces_and_removes(shoal: Shell) -> None:
    spec = update(
        shoal, "--env-add", "B=3", "--env-add", "C=4", "--env-rm", "A", "--label-add", "x=y", "--label-rm", "tier",
        "--publish-rm", "80", "--publish-add", "9090:80", "--mount-rm", "/data", "--network-rm", "back",
        "--network-add", "front", "--constraint-rm", "node.role==worker", "--image", "web:2", "--args", "a 'b c'",
        "--replicas", "5",
    )  # fmt: skip
    assert list(spec.task.container.env) == ["B=3", "C=4"]
    assert dict(spec.labels) == {"x": "y"}
    assert [(port.published, port.target) for port in spec.ports] == [(9090, 80)]
    assert not spec.task.container.mounts
    assert [each.network for each in spec.task.networks] == ["front"]
    assert not spec.task.placement.constraints
    assert (spec.task.container.image, list(spec.task.container.args)) == ("web:2", ["a", "b c"])
    assert spec.replicas == 5


@pytest.mark.usefixtures("web")
def test_one_port_may_be_published_twice(shoal: Shell) -> None:
    spec = update(shoal, "--publish-add", "9090:80", "--publish-add", "8080:80")
    assert [port.published for port in spec.ports] == [9090, 8080]


@pytest.mark.usefixtures("web")
def test_switches_can_be_taken_back(shoal: Shell) -> None:
    container = update(shoal, "--read-only=false", "--tty").task.container
    assert (container.read_only, container.init, container.tty) == (False, True, True)


@pytest.mark.usefixtures("web")
def test_force_redeploys(shoal: Shell) -> None:
    assert update(shoal, "--force").task.force_update == 1


def test_update_changes_what_tasks_get_of_their_hosts(shoal: Shell, web: types_pb2.Service) -> None:
    before = web.spec.task.container
    before.privileged = True
    before.devices.add(source="/dev/a")
    before.log.driver, before.log.options["max-size"] = "local", "1m"
    container = update(
        shoal, "--no-privileged", "--device-rm", "/dev/a", "--device-add", "/dev/b:r", "--log-opt", "max-file=2",
        "--dns-search-add", "x.test",
    ).task.container  # fmt: skip
    assert not container.privileged
    assert [(each.source, each.permissions) for each in container.devices] == [("/dev/b", "r")]
    assert (container.log.driver, dict(container.log.options)) == ("local", {"max-file": "2"})
    assert list(container.dns_search) == ["x.test"]
    assert update(shoal, "--log-driver", "none").task.container.log == types_pb2.LogConfig(driver="none")


@pytest.mark.usefixtures("web")
def test_capabilities_change_sides(shoal: Shell) -> None:
    container = update(shoal, "--cap-add", "CHOWN", "--cap-add", "NET_RAW", "--cap-drop", "KILL").task.container
    assert (list(container.cap_add), list(container.cap_drop)) == (["NET_RAW"], ["KILL"])


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--env-rm", "Z", "the service has no variable Z to remove"),
        ("--label-rm", "z", "the service has no label z to remove"),
        ("--publish-rm", "81", "the service has no published port 81/tcp to remove"),
        ("--mount-rm", "/z", "the service has no mount at /z to remove"),
        ("--network-rm", "z", "the service has no network z to remove"),
    ],
)
@pytest.mark.usefixtures("web")
def test_what_is_not_there_cannot_be_removed(shoal: Shell, manager: Manager, flag: str, value: str, told: str) -> None:
    ran = shoal("service", "update", "-d", flag, value, "web")
    assert (ran.code, ran.err) == (1, f"Error: {told}\n")
    assert not manager.of(control_pb2.UpdateServiceRequest)


def test_a_health_check_is_made_changed_and_taken_away(shoal: Shell) -> None:
    made = create(shoal, "--name", "web", "--health-cmd", "curl -f /", "--health-interval", "5s", "web:1")
    assert made.task.container.health == types_pb2.HealthCheck(test=["CMD-SHELL", "curl -f /"], interval_ns=5 * SECOND)
    times = update(shoal, "--health-retries", "5").task.container.health
    assert times == types_pb2.HealthCheck(test=["CMD-SHELL", "curl -f /"], interval_ns=5 * SECOND, retries=5)
    assert list(update(shoal, "--health-cmd", "true").task.container.health.test) == ["CMD-SHELL", "true"]
    assert update(shoal, "--no-healthcheck").task.container.health == types_pb2.HealthCheck(test=["NONE"])
    assert list(update(shoal, "--health-cmd", "a").task.container.health.test) == ["CMD-SHELL", "a"]
    assert update(shoal, "--replicas", "2").task.container.health.retries == 0
