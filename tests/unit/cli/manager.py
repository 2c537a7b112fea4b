"""A manager's end of the wire for the CLI's tests: real gRPC over a unix socket, records in memory, no decisions.

`asked` holds every request in order; `logs` what containers said, by container id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from cli.app import run
from shoal.errors import Conflict, NotFound, PermissionDenied, ShoalError, Unavailable
from shoal.v1 import control_pb2, control_pb2_grpc, engine_pb2, engine_pb2_grpc, swarm_pb2, swarm_pb2_grpc, types_pb2
from shoal.v1.types_pb2 import Cluster, ClusterSpec, Meta, Node, NodeDescription, NodeSpec, NodeStatus

SECOND = 10**9


class Manager(
    control_pb2_grpc.ControlServiceServicer,
    swarm_pb2_grpc.SwarmServiceServicer,
    engine_pb2_grpc.ContainerServiceServicer,
):
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.cluster = Cluster(
            meta=Meta(id="c1", version=7), spec=ClusterSpec(name="default", task_history=5), root_ca_pem="PEM\n"
        )
        self.nodes: dict[str, control_pb2.NodeView] = {}
        self.services: dict[str, types_pb2.Service] = {}
        self.tasks: dict[str, control_pb2.TaskView] = {}
        self.logs: dict[str, list[engine_pb2.LogLine]] = {}
        self.warnings: list[str] = []
        self.audit: list[types_pb2.AuditEntry] = []
        self.verified = control_pb2.VerifyAuditResponse()
        # The root that a rotation is to, and what happens after each look at the nodes.
        self.rotation = ""
        self.steps: list[Callable[[], None]] = []
        self.users: dict[str, types_pb2.User] = {}
        self.tokens: list[control_pb2.TokenView] = []
        self.conflicts = 0
        self.findings: list[control_pb2.Finding] = []
        # The parts of a backup as they are sent.
        self.backup: list[bytes] = []
        # What WatchService tells, in order; then it waits until `ended`, or for good.
        self.watched: list[control_pb2.WatchServiceResponse] = []
        self.ended = threading.Event()
        # Called once the tasks have been listed.
        self.listed: Callable[[], None] = lambda: None
        for number, role in enumerate((types_pb2.ROLE_MANAGER, types_pb2.ROLE_WORKER, types_pb2.ROLE_WORKER), 1):
            self.nodes[f"n{number}"] = node(number, role)

    def of(self, kind: type) -> list[Any]:
        """The requests of one kind."""
        return [each for each in self.asked if isinstance(each, kind)]

    # swarm

    def InitSwarm(self, request: Any, context: Any) -> Any:
        return swarm_pb2.InitSwarmResponse(
            node_id="idn1",
            worker_token="TOKEN",
            manager_address="10.0.0.1:2377",
            unlock_key="SHKEY-1-KEY" if request.spec.autolock else "",
        )

    def JoinSwarm(self, request: Any, context: Any) -> Any:
        return swarm_pb2.JoinSwarmResponse(node_id="idn2", role=types_pb2.ROLE_WORKER)

    def LeaveSwarm(self, request: Any, context: Any) -> Any:
        if not request.force:
            raise Conflict("You are the last manager.", hint="use --force to ignore this")
        return swarm_pb2.LeaveSwarmResponse()

    def UnlockSwarm(self, request: Any, context: Any) -> Any:
        if request.key != "SHKEY-1-KEY":
            raise PermissionDenied("swarm could not be unlocked: invalid key provided")
        return swarm_pb2.UnlockSwarmResponse()

    # control

    def RotateRoot(self, request: Any, context: Any) -> Any:
        self.cluster.rotation.root_ca_pem = self.rotation
        return control_pb2.RotateRootResponse()

    def GetCluster(self, request: Any, context: Any) -> Any:
        return control_pb2.GetClusterResponse(cluster=self.cluster)

    def UpdateCluster(self, request: Any, context: Any) -> Any:
        return control_pb2.UpdateClusterResponse(cluster=self.cluster)

    def GetJoinToken(self, request: Any, context: Any) -> Any:
        return control_pb2.GetJoinTokenResponse(token="TOKEN", managers=["10.0.0.1:2377"])

    def ExamineCluster(self, request: Any, context: Any) -> Any:
        if not self.findings:
            raise Unavailable("the managers have no quorum")
        return control_pb2.ExamineClusterResponse(findings=self.findings)

    def GetUnlockKey(self, request: Any, context: Any) -> Any:
        return control_pb2.GetUnlockKeyResponse(key="SHKEY-1-NEW" if request.rotate else "SHKEY-1-KEY")

    def BackupCluster(self, request: Any, context: Any) -> Iterator[Any]:
        yield from (control_pb2.BackupClusterResponse(data=data) for data in self.backup)

    def ReadAudit(self, request: Any, context: Any) -> Iterator[Any]:
        yield control_pb2.ReadAuditResponse(entries=self.audit)

    def VerifyAudit(self, request: Any, context: Any) -> Any:
        return self.verified

    def CreateUser(self, request: Any, context: Any) -> Any:
        if request.name in self.users:
            raise Conflict(f"user {request.name} already exists")
        user = types_pb2.User(
            meta=Meta(id=request.name, version=3, created_at_ns=SECOND),
            role=request.role,
            description=request.description,
            expires_at_ns=request.life_ns,
        )
        self.users[request.name] = user
        return control_pb2.CreateUserResponse(
            user=user, certificate_pem="CERT\n", root_ca_pem="ROOT\n", managers=["10.0.0.1:2377"]
        )

    def GetUser(self, request: Any, context: Any) -> Any:
        if request.name not in self.users:
            raise NotFound(f"No such user: {request.name}")
        return control_pb2.GetUserResponse(user=self.users[request.name])

    def ListUsers(self, request: Any, context: Any) -> Any:
        return control_pb2.ListUsersResponse(users=self.users.values())

    def UpdateUser(self, request: Any, context: Any) -> Any:
        return control_pb2.UpdateUserResponse(user=self.users[request.name])

    def RevokeUser(self, request: Any, context: Any) -> Any:
        return control_pb2.RevokeUserResponse()

    def RemoveUser(self, request: Any, context: Any) -> Any:
        if request.name not in self.users:
            raise NotFound(f"No such user: {request.name}")
        return control_pb2.RemoveUserResponse()

    def CreateJoinToken(self, request: Any, context: Any) -> Any:
        token = types_pb2.Token(meta=Meta(id="tok1", created_at_ns=SECOND), role=request.role, uses=request.uses)
        view = control_pb2.TokenView(token=token, state="valid")
        return control_pb2.CreateJoinTokenResponse(token=view, text="TOKEN", managers=["10.0.0.1:2377"])

    def ListJoinTokens(self, request: Any, context: Any) -> Any:
        return control_pb2.ListJoinTokensResponse(tokens=self.tokens)

    def RevokeJoinToken(self, request: Any, context: Any) -> Any:
        if request.token != "tok1":
            raise NotFound(f"No such join token: {request.token}")
        return control_pb2.RevokeJoinTokenResponse()

    def ListNodes(self, request: Any, context: Any) -> Any:
        answer = control_pb2.ListNodesResponse(nodes=self.nodes.values())
        if self.steps:
            self.steps.pop(0)()
        return answer

    def GetNode(self, request: Any, context: Any) -> Any:
        return control_pb2.GetNodeResponse(node=self._node("n1" if request.node == "self" else request.node))

    def UpdateNode(self, request: Any, context: Any) -> Any:
        return control_pb2.UpdateNodeResponse(node=self._node(request.node).node)

    def RemoveNode(self, request: Any, context: Any) -> Any:
        self._node(request.node)
        return control_pb2.RemoveNodeResponse()

    def CreateService(self, request: Any, context: Any) -> Any:
        made = types_pb2.Service(meta=Meta(id="svc1", version=10), spec=request.spec, task_version=1)
        self.services[made.spec.name] = made
        return control_pb2.CreateServiceResponse(service=made, warnings=self.warnings)

    def GetService(self, request: Any, context: Any) -> Any:
        return control_pb2.GetServiceResponse(service=self._view(self._service(request.service)))

    def ListServices(self, request: Any, context: Any) -> Any:
        return control_pb2.ListServicesResponse(services=map(self._view, self.services.values()))

    def UpdateService(self, request: Any, context: Any) -> Any:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("update out of sequence: somebody else changed it meanwhile")
        found = self._service(request.service)
        found.spec.CopyFrom(request.spec)
        found.meta.version += 1
        return control_pb2.UpdateServiceResponse(service=found, warnings=self.warnings)

    def RemoveService(self, request: Any, context: Any) -> Any:
        self._service(request.service)
        return control_pb2.RemoveServiceResponse()

    def WatchService(self, request: Any, context: Any) -> Iterator[Any]:
        yield from self.watched
        while context.is_active() and not self.ended.wait(0.01):
            pass
        raise NotFound(f"No such service: {request.service}")

    def ListTasks(self, request: Any, context: Any) -> Any:
        wanted = {(each.key, each.value) for each in request.filters}
        for key, value in wanted:
            if key == "service":
                self._service(value)
            if key == "node":
                self._node("n1" if value == "self" else value)
        answer = control_pb2.ListTasksResponse(tasks=self.tasks.values())
        self.listed()
        return answer

    def GetTask(self, request: Any, context: Any) -> Any:
        for id, view in self.tasks.items():
            if request.task in (id, f"{view.service_name}.{view.task.slot}"):
                return control_pb2.GetTaskResponse(task=view)
        raise NotFound(f"No such task: {request.task}")

    # engine, as relayed

    def ReadLogs(self, request: Any, context: Any) -> Iterator[Any]:
        asked = dict(context.invocation_metadata())["shoal-node"]
        view = next(each for each in self.nodes.values() if each.node.meta.id == asked)
        if view.node.status.state == types_pb2.NODE_STATE_DOWN:
            raise Unavailable(f"node {view.node.description.hostname} is down")
        if request.container not in self.logs:
            raise NotFound(f"No such container: {request.container}")
        for line in self.logs[request.container]:
            yield engine_pb2.ReadLogsResponse(lines=[line])

    def _node(self, name: str) -> control_pb2.NodeView:
        for key, view in self.nodes.items():
            if name in (key, view.node.meta.id):
                return view
        raise NotFound(f"No such node: {name}")

    def _service(self, name: str) -> types_pb2.Service:
        for key, service in self.services.items():
            if name in (key, service.meta.id):
                return service
        raise NotFound(f"No such service: {name}")

    def _view(self, service: types_pb2.Service) -> control_pb2.ServiceView:
        return control_pb2.ServiceView(service=service, running=1, desired=service.spec.replicas)


def node(number: int, role: types_pb2.Role.ValueType) -> control_pb2.NodeView:
    return control_pb2.NodeView(
        node=Node(
            meta=Meta(id=f"idn{number}", version=3, created_at_ns=SECOND),
            spec=NodeSpec(role=role, availability=types_pb2.AVAILABILITY_ACTIVE),
            description=NodeDescription(
                hostname=f"n{number}",
                os="linux",
                architecture="x86_64",
                agent_version="1.2",
                resources=types_pb2.Resources(nano_cpus=2 * SECOND, memory_bytes=4 << 30),
                address=f"10.0.0.{number}",
            ),
            status=NodeStatus(state=types_pb2.NODE_STATE_READY),
        ),
        manager_status="Leader" if role == types_pb2.ROLE_MANAGER else "",
    )


class _Boundary(grpc.ServerInterceptor):
    """Keeps what was asked, and sends errors as `shoal.rpc` does."""

    def __init__(self, asked: list[Any]) -> None:
        self._asked = asked

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None

        def fail(context: Any, error: ShoalError) -> None:
            context.set_trailing_metadata(
                (("shoal-error", type(error).__name__), ("shoal-hint-bin", error.hint.encode()))
            )
            context.abort(grpc.StatusCode[error.code.name], error.message)

        def one(request: Any, context: Any) -> Any:
            self._asked.append(request)
            try:
                return handler.unary_unary(request, context)
            except ShoalError as error:
                return fail(context, error)

        def many(request: Any, context: Any) -> Iterator[Any]:
            self._asked.append(request)
            try:
                yield from handler.unary_stream(request, context)
            except ShoalError as error:
                fail(context, error)

        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        call = many if handler.response_streaming else one
        return make(call, handler.request_deserializer, handler.response_serializer)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Shell:
    """Runs command lines against the manager."""

    def __init__(self, manager: Manager, host: str, capture: pytest.CaptureFixture[str]) -> None:
        self.manager = manager
        self.host = host
        self._capture = capture

    def __call__(self, *argv: str) -> Ran:
        self._capture.readouterr()
        code = run(["-H", self.host, *argv])
        return Ran(code, *self._capture.readouterr())

    def lines(self, *argv: str) -> list[str]:
        """The output of a command that succeeds."""
        ran = self(*argv)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out.splitlines()


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def shoal(manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    server = grpc.server(ThreadPoolExecutor(16), interceptors=[_Boundary(manager.asked)])
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager, server)
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(manager, server)
    engine_pb2_grpc.add_ContainerServiceServicer_to_server(manager, server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    yield Shell(manager, f"unix://{tmp_path}/s", capsys)
    manager.ended.set()
    server.stop(0).wait()
