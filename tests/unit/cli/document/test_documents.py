"""What `inspect` prints: docker's names, and a value under each, whatever is left unsaid."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.document import container, image, network, node, service, task, volume
from cli.output.functions import FunctionError, plain
from cli.output.inspection import render
from cli.output.template import Template
from shoal.v1 import types_pb2
from shoal.v1.control_pb2 import GetTaskResponse, NodeView, TaskView
from shoal.v1.engine_pb2 import ContainerLayout, Folders
from shoal.v1.types_pb2 import (
    Address,
    Container,
    ContainerSpec,
    ContainerStatus,
    Image,
    ImageConfig,
    Meta,
    Mount,
    Network,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeSpec,
    NodeStatus,
    Port,
    Resources,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskStatus,
    Volume,
)

SECOND = 10**9
TCP, UDP = types_pb2.PORT_PROTOCOL_TCP, types_pb2.PORT_PROTOCOL_UDP


def at(document: Any, path: str) -> Any:
    """`A.B.0` of a document."""
    for name in path.split("."):
        document = document[int(name) if isinstance(document, list) else name]
    return document


@pytest.mark.parametrize(
    ("make", "empty"),
    [
        (container.document, Container()),
        (image.document, Image()),
        (network.document, Network()),
        (volume.document, Volume()),
        (node.document, NodeView()),
        (service.document, Service()),
        (task.document, GetTaskResponse()),
    ],
)
def test_empty_record_is_a_document_too(make: Any, empty: Any) -> None:
    assert json.loads(json.dumps(make(empty)))


def test_container() -> None:
    made = container.document(
        Container(
            meta=Meta(id="a" * 64, created_at_ns=SECOND),
            name="web",
            spec=ContainerSpec(
                image="web:1",
                tty=True,
                labels={"a": "b"},
                mounts=[
                    Mount(type=types_pb2.MOUNT_TYPE_BIND, source="/src", target="/dst", read_only=True),
                    Mount(type=types_pb2.MOUNT_TYPE_TMPFS, target="/tmp", tmpfs_size_bytes=1024, tmpfs_mode=0o1777),
                ],
            ),
            limits=Resources(memory_bytes=64 << 20, nano_cpus=SECOND),
            restart=types_pb2.RestartPolicy(condition=types_pb2.RESTART_CONDITION_ANY),
            networks=[types_pb2.NetworkAttachment(network="bridge")],
            ports=[Port(protocol=TCP, target=80)],
            image_id="sha256:1",
            argv=["sh", "-c", "true"],
            env=["A=1"],
            mounts=[Mount(type=types_pb2.MOUNT_TYPE_VOLUME, source="data", target="/data")],
            status=ContainerStatus(
                state=types_pb2.CONTAINER_STATE_RUNNING,
                pid=42,
                addresses=[Address(network_id="n", network_name="bridge", address="10.0.0.2", prefix=16)],
                ports=[
                    Port(protocol=TCP, target=80, published=8080),
                    Port(protocol=TCP, target=80, published=8081, host_address="127.0.0.1"),
                    Port(protocol=UDP, target=53),
                ],
            ),
        )
    )
    for path, value in {
        "Id": "a" * 64,
        "Created": "1970-01-01T00:00:01Z",
        "Name": "/web",
        "Path": "sh",
        "Args": ["-c", "true"],
        "Image": "sha256:1",
        "State.Status": "running",
        "State.Running": True,
        "State.Pid": 42,
        "State.FinishedAt": "0001-01-01T00:00:00Z",
        "Config.Image": "web:1",
        "Config.Tty": True,
        "Config.Env": ["A=1"],
        "Config.Labels": {"a": "b"},
        "Config.Hostname": "a" * 12,
        "HostConfig.Memory": 64 << 20,
        "HostConfig.NanoCpus": SECOND,
        "HostConfig.RestartPolicy.Name": "always",
        "HostConfig.NetworkMode": "bridge",
        "HostConfig.Binds": ["/src:/dst:ro"],
        "HostConfig.Tmpfs": {"/tmp": "size=1024,mode=1777"},
        "HostConfig.PortBindings": {"80/tcp": None},
        "Mounts.0.Type": "volume",
        "Mounts.0.Name": "data",
        "Mounts.0.Destination": "/data",
        "Mounts.0.RW": True,
        "NetworkSettings.IPAddress": "10.0.0.2",
        "NetworkSettings.Networks.bridge.IPPrefixLen": 16,
        "NetworkSettings.Ports": {
            "80/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "127.0.0.1", "HostPort": "8081"},
            ],
            "53/udp": None,
        },
    }.items():
        assert at(made, path) == value, path


@pytest.mark.parametrize("state", ["CREATED", "RUNNING", "PAUSED", "RESTARTING", "EXITED", "DEAD"])
def test_container_state_has_one_word_and_its_switches(state: str) -> None:
    status = ContainerStatus(state=types_pb2.ContainerState.Value(f"CONTAINER_STATE_{state}"))
    made = container.document(Container(status=status))["State"]
    assert made["Status"] == state.lower()
    assert made["Running"] == (state in ("RUNNING", "PAUSED", "RESTARTING"))
    assert [made[each] for each in ("Paused", "Restarting", "Dead")] == [
        state == each for each in ("PAUSED", "RESTARTING", "DEAD")
    ]


def test_container_is_shown_where_it_is_on_its_host() -> None:
    layout = ContainerLayout(
        folders=Folders(layers=["/l/2", "/l/1"], upper="/c/upper", work="/c/work", merged="/proc/42/root"),
        hosts_path="/c/hosts",
        masked_paths=["/proc/kcore"],
        exec_ids=["e1"],
    )
    made = container.document(Container(), layout)
    assert made["GraphDriver"]["Data"] == {
        "LowerDir": "/l/2:/l/1",
        "MergedDir": "/proc/42/root",
        "UpperDir": "/c/upper",
        "WorkDir": "/c/work",
    }
    assert (made["HostsPath"], made["ExecIDs"]) == ("/c/hosts", ["e1"])
    said = plain(made["HostConfig"])
    assert (said["MaskedPaths"], said["ReadonlyPaths"]) == (["/proc/kcore"], None)


def test_a_template_sees_what_json_leaves_out() -> None:
    web = container.document(Container(spec=ContainerSpec(labels={"a": "b"})))
    for template, text in {
        "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}": "none",
        "{{.HostConfig.Binds}} {{len .HostConfig.CapAdd}} {{json .HostConfig.CapAdd}}": "[] 0 null",
        "{{range .HostConfig.Ulimits}}{{.Name}}{{else}}none{{end}}": "none",
        "{{.HostConfig.Tmpfs}} {{json .HostConfig.Tmpfs}} {{.Config.ExposedPorts}}": "map[] null map[]",
        '{{index .Config.Labels "a"}} {{index .Config.Labels "c"}} {{.Config.Labels.c}}': "b  ",
    }.items():
        assert Template(template).render(web) == text
    shown = json.loads(render([web], ""))[0]
    assert "Health" not in shown["State"]
    assert {"Tmpfs", "Init", "Sysctls"}.isdisjoint(shown["HostConfig"])
    assert shown["HostConfig"]["CapAdd"] is None
    with pytest.raises(FunctionError, match="nil pointer"):
        Template("{{.State.Health.Status}}").render(web)


def test_networks_of_a_container_that_does_not_run_are_those_that_it_will_be_on() -> None:
    web = Container(name="web", networks=[types_pb2.NetworkAttachment(network="back", aliases=["db"])])
    made = container.document(web, ContainerLayout(network_ids={"back": "n1"}))["NetworkSettings"]
    assert made["SandboxKey"] == made["SandboxID"] == made["EndpointID"] == ""
    place = made["Networks"]["back"]
    assert (place["NetworkID"], place["Aliases"], place["EndpointID"]) == ("n1", ["db"], "")


def test_container_and_network_show_the_same_endpoint() -> None:
    status = ContainerStatus(pid=42, started_at_ns=1, addresses=[Address(network_id="n1", network_name="back")])
    web = Container(meta=Meta(id="a"), status=status, networks=[types_pb2.NetworkAttachment(network="back")])
    settings = container.document(web)["NetworkSettings"]
    shown = network.document(Network(meta=Meta(id="n1")), [web])["Containers"]["a"]["EndpointID"]
    assert len(shown) == len(settings["SandboxID"]) == 64
    assert settings["Networks"]["back"]["EndpointID"] == settings["EndpointID"] == shown
    status.started_at_ns = 2
    assert container.document(Container(meta=Meta(id="a"), status=status))["NetworkSettings"]["EndpointID"] != shown


def test_image() -> None:
    made = image.document(
        Image(
            meta=Meta(id="sha256:1"),
            tags=["web:1"],
            size_bytes=7,
            diff_ids=["sha256:2"],
            config=ImageConfig(cmd=["sh"], exposed_ports=["80/tcp"]),
        )
    )
    assert (made["Id"], made["RepoTags"], made["Size"]) == ("sha256:1", ["web:1"], 7)
    assert made["Config"]["Cmd"] == ["sh"]
    assert plain(made["Config"]["Entrypoint"]) is None
    assert made["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert made["RootFS"] == {"Type": "layers", "Layers": ["sha256:2"]}


def test_network() -> None:
    made = network.document(
        Network(
            meta=Meta(id="net1"),
            spec=NetworkSpec(name="back", driver="overlay", attachable=True),
            scope=types_pb2.NETWORK_SCOPE_SWARM,
            subnet="10.1.0.0/16",
            vni=4097,
        )
    )
    assert (made["Name"], made["Scope"], made["Driver"], made["Attachable"]) == ("back", "swarm", "overlay", True)
    assert made["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/16"}]
    assert made["Options"] == {"com.docker.network.driver.overlay.vxlanid_list": "4097"}


def test_who_is_on_a_network_of_the_cluster() -> None:
    def task(
        id: str, slot: int, node: str, network: str = "net1", state: int = types_pb2.TASK_STATE_RUNNING
    ) -> TaskView:
        address = Address(network_id=network, network_name="back", address=f"10.1.{slot}.2", prefix=24)
        status = TaskStatus(state=state, container_id=f"c{slot}", addresses=[address])
        made = Task(meta=Meta(id=id), service_id="s1", slot=slot, node_id=node, status=status)
        return TaskView(task=made, service_name="web", node_name=node)

    tasks = [
        task("t2", 2, "node2"),
        task("t1", 1, "node1"),
        task("t3", 3, "node3", network="net2"),
        task("t4", 4, "node3", state=types_pb2.TASK_STATE_STARTING),
    ]
    web = Service(
        meta=Meta(id="s1"),
        ports=[Port(target=80, published=8080), Port(target=81, published=81, mode=types_pb2.PUBLISH_MODE_HOST)],
        addresses=[
            types_pb2.VirtualAddress(network_id=each, address=f"10.0.0.{each[-1]}") for each in ("net2", "net1")
        ],
    )
    nodes = [
        Node(meta=Meta(id=f"node{n}"), description=NodeDescription(hostname=f"h{n}", address=f"192.0.2.{n}"))
        for n in (1, 2, 3)
    ]
    own = ContainerStatus(pid=42, started_at_ns=1, addresses=tasks[1].task.status.addresses)
    held = [Container(meta=Meta(id="c1"), name="web.1.t1", status=own), Container(meta=Meta(id="alone"))]
    back = Network(meta=Meta(id="net1"), spec=NetworkSpec(name="back"), scope=types_pb2.NETWORK_SCOPE_SWARM)
    made = network.document(back, held, network.Cluster([web], tasks, nodes))
    assert made["Peers"] == [{"Name": "h1-node1", "IP": "192.0.2.1"}, {"Name": "h2-node2", "IP": "192.0.2.2"}]
    endpoint = made["Containers"]["c1"]["EndpointID"]
    there = {"Name": "web.2.t2", "EndpointID": "", "EndpointIP": "10.1.2.2", "Info": {"Host IP": "192.0.2.2"}}
    here = {"Name": "web.1.t1", "EndpointID": endpoint, "EndpointIP": "10.1.1.2", "Info": {"Host IP": "192.0.2.1"}}
    assert made["Services"] == {"web": {"VIP": "10.0.0.1", "Ports": [], "LocalLBIndex": 0, "Tasks": [there, here]}}
    back.spec.ingress = True
    made = network.document(back, (), network.Cluster([web], tasks, nodes))
    assert made["Services"]["web"]["Ports"] == ["Target: 80, Publish: 8080"]
    assert "Services" not in json.loads(render([network.document(back)], ""))[0]


def test_volume() -> None:
    made = volume.document(Volume(name="data", mountpoint="/v/data", labels={"a": "b"}))
    assert (made["Name"], made["Driver"], made["Mountpoint"], made["Labels"]) == (
        "data",
        "local",
        "/v/data",
        {"a": "b"},
    )


@pytest.mark.parametrize(
    ("status", "leader", "reachability"),
    [("Leader", True, "reachable"), ("Reachable", False, "reachable"), ("Unreachable", False, "unreachable")],
)
def test_manager(status: str, leader: bool, reachability: str) -> None:
    described = NodeDescription(
        hostname="n1", os="linux", architecture="x86_64", address="10.0.0.1", resources=Resources(nano_cpus=2 * SECOND)
    )
    view = NodeView(
        node=Node(
            meta=Meta(id="idn1", version=3),
            spec=NodeSpec(role=types_pb2.ROLE_MANAGER, availability=types_pb2.AVAILABILITY_DRAIN),
            description=described,
            status=NodeStatus(state=types_pb2.NODE_STATE_READY),
        ),
        manager_status=status,
    )
    made = node.document(view)
    assert (made["ID"], made["Version"]) == ("idn1", {"Index": 3})
    assert made["Spec"] == {"Labels": {}, "Role": "manager", "Availability": "drain"}
    assert made["Description"]["Resources"] == {"NanoCPUs": 2 * SECOND, "MemoryBytes": 0}
    assert made["Status"] == {"State": "ready", "Message": "", "Addr": "10.0.0.1"}
    assert made["ManagerStatus"] == {"Leader": leader, "Reachability": reachability, "Addr": "10.0.0.1"}


def test_worker_has_no_manager_status() -> None:
    assert "ManagerStatus" not in node.document(NodeView())


def test_service() -> None:
    port = Port(protocol=TCP, target=80, published=8080, mode=types_pb2.PUBLISH_MODE_INGRESS)
    spec = ServiceSpec(
        name="web",
        mode=types_pb2.SERVICE_MODE_REPLICATED,
        replicas=3,
        ports=[Port(protocol=TCP, target=80, mode=types_pb2.PUBLISH_MODE_INGRESS)],
        update=types_pb2.UpdatePolicy(parallelism=2, order=types_pb2.UPDATE_ORDER_START_FIRST),
        task=TaskSpec(
            container=ContainerSpec(image="web:1", env=["A=1"]),
            limits=Resources(memory_bytes=64 << 20, pids=9),
            restart=types_pb2.RestartPolicy(condition=types_pb2.RESTART_CONDITION_ON_FAILURE, delay_ns=SECOND),
        ),
    )
    made = service.document(
        Service(
            meta=Meta(id="svc1", version=8),
            spec=spec,
            ports=[port],
            addresses=[types_pb2.VirtualAddress(network_id="ing", address="10.0.0.3")],
            previous=ServiceSpec(name="web", mode=types_pb2.SERVICE_MODE_GLOBAL),
        )
    )
    for path, value in {
        "Spec.Name": "web",
        "Spec.Mode": {"Replicated": {"Replicas": 3}},
        "Spec.UpdateConfig": {"Parallelism": 2, "Delay": 0, "Order": "start-first"},
        "Spec.TaskTemplate.ContainerSpec.Image": "web:1",
        "Spec.TaskTemplate.ContainerSpec.Env": ["A=1"],
        "Spec.TaskTemplate.Resources.Limits": {"NanoCPUs": 0, "MemoryBytes": 64 << 20, "Pids": 9},
        "Spec.TaskTemplate.RestartPolicy.Condition": "on-failure",
        "Spec.EndpointSpec.Ports.0.PublishedPort": 0,
        "Endpoint.Ports.0": {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
        "Endpoint.VirtualIPs": [{"NetworkID": "ing", "Addr": "10.0.0.3"}],
        "PreviousSpec.Mode": {"Global": {}},
    }.items():
        assert at(made, path) == value, path
    assert "PreviousSpec" not in service.document(Service(spec=spec))


def test_task() -> None:
    status = TaskStatus(
        state=types_pb2.TASK_STATE_FAILED,
        error="task: non-zero exit (3)",
        exit_code=3,
        container_id="c",
        addresses=[Address(network_id="n", network_name="back", address="10.0.0.5", prefix=24)],
    )
    one = Task(meta=Meta(id="t1"), service_id="svc1", slot=2, desired=types_pb2.TASK_STATE_SHUTDOWN, status=status)
    made = task.document(GetTaskResponse(task=TaskView(task=one, service_name="web")))
    assert (made["Name"], made["Slot"], made["DesiredState"]) == ("web.2.t1", 2, "shutdown")
    assert made["Status"]["State"] == "failed"
    assert made["Status"]["ContainerStatus"] == {"ContainerID": "c", "PID": 0, "ExitCode": 3}
    assert made["NetworksAttachments"] == [{"Network": {"ID": "n", "Name": "back"}, "Addresses": ["10.0.0.5/24"]}]
