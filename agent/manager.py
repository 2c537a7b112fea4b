"""Manager: the manager of this host, as its agent sees it: a supervised process behind a unix socket."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc.aio

from agent.settings import ManagerSettings
from agent.standing import Said
from agent.supervise import Supervised
from shoal.clock import Clock
from shoal.errors import Conflict, DeadlineExceeded, Locked, NotFound, ShoalError, Unavailable, Unsupported
from shoal.files import write_atomic
from shoal.rpc import dial, translated
from shoal.settings import Paths
from shoal.v1 import control_pb2, control_pb2_grpc, engine_pb2, swarm_pb2, swarm_pb2_grpc, types_pb2

READY_S = 30.0
ASK_S = 5.0
# One that stands still for this long is as good as down.
SILENCE_S = 4.5
_LOOK_S = 0.1


class ManagerProcess:
    """Started by `run`, which lasts until `stop`; it outlives an agent that dies. Others reach it at `address`."""

    def __init__(self, settings: ManagerSettings, paths: Paths, *, clock: Clock) -> None:
        argv = [*program(), "--data-dir", str(paths.manager_data), "--identity-dir", str(paths.identity)]
        argv += ["--socket", str(paths.manager_socket), *settings.argv(), *_store_words(settings, paths.manager_data)]
        self.address = settings.advertise
        self._clock = clock
        self._process = Supervised(
            argv, pid_file=paths.run / "manager.pid", log_file=paths.data / "manager.log", clock=clock
        )
        self._target = f"unix:{paths.manager_socket}"
        self._channel: grpc.aio.Channel | None = None

    async def run(self) -> None:
        await self._process.run()

    async def ready(self) -> None:
        """Return once it serves. Raises Locked where it waits for its unlock key, ShoalError with what it said when it
        dies meanwhile or does not serve in 30 s."""
        answering = asyncio.ensure_future(self._ask())
        dying = asyncio.ensure_future(self._process.died())
        try:
            await asyncio.wait((answering, dying), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                try:
                    answering.result()
                except Locked:
                    raise
                except (DeadlineExceeded, Unavailable) as error:
                    said = self._process.last_words() or str(error)
                    raise Unavailable(f"the manager does not serve within {READY_S:g} s: {said}") from error
                return
        finally:
            for waiting in (answering, dying):
                waiting.cancel()
            await asyncio.gather(answering, dying, return_exceptions=True)
        raise ShoalError(f"the manager cannot start: {self._process.last_words() or 'it said nothing'}")

    def channel(self) -> grpc.aio.Channel:
        """Raises Unavailable while its process is not there."""
        if self._process.running() is None:
            raise Unavailable(
                f"the manager of this node is not running: {self._process.last_words() or 'it is being started'}",
                hint="its agent starts it again; try in a moment",
            )
        if self._channel is None:
            self._channel = dial(self._target, silence_s=SILENCE_S)
        return self._channel

    async def worker_token(self) -> str:
        request = control_pb2.GetJoinTokenRequest(role=types_pb2.ROLE_WORKER)
        with translated():
            answer = await control_pb2_grpc.ControlServiceStub(self.channel()).GetJoinToken(request, timeout=ASK_S)
        return answer.token

    async def managers(self) -> int:
        """How many nodes are to be managers."""
        only = [engine_pb2.Filter(key="role", value="manager")]
        stub = control_pb2_grpc.ControlServiceStub(self.channel())
        with translated():
            answer = await stub.ListNodes(control_pb2.ListNodesRequest(filters=only), timeout=ASK_S)
        return len(answer.nodes)

    async def demote(self, node: str) -> None:
        """Have the cluster want `node` to be a worker. Raises Conflict when it must stay a manager."""
        stub = control_pb2_grpc.ControlServiceStub(self.channel())
        with translated():
            found = (await stub.GetNode(control_pb2.GetNodeRequest(node=node), timeout=ASK_S)).node.node
            found.spec.role = types_pb2.ROLE_WORKER
            request = control_pb2.UpdateNodeRequest(node=node, version=found.meta.version, spec=found.spec)
            await stub.UpdateNode(request, timeout=ASK_S)

    async def says(self) -> Said:
        """Empty when it does not answer. Raises Locked while it waits for its unlock key."""
        try:
            with translated():
                answer = await control_pb2_grpc.ControlServiceStub(self.channel()).GetCluster(
                    control_pb2.GetClusterRequest(), timeout=ASK_S
                )
        except Locked:
            raise
        except ShoalError:
            return Said()
        backup = answer.cluster.backup
        warnings = (f"the last scheduled backup failed: {backup.error}",) if backup.error else ()
        return Said(answer.version, warnings)

    async def unlock(self, key: str) -> None:
        """Returns once it serves. Raises Conflict when it is not locked, PermissionDenied for a wrong key."""
        try:
            with translated():
                await swarm_pb2_grpc.UnlockServiceStub(self.channel()).Unlock(
                    swarm_pb2.UnlockRequest(key=key), timeout=ASK_S
                )
        except Unsupported as error:
            raise Conflict("swarm is not locked") from error
        deadline = self._clock.monotonic() + READY_S
        while True:
            try:
                return await self.ready()
            except Locked:  # of the server that took the key, which is about to end
                if self._clock.monotonic() > deadline:
                    raise
            await self._clock.sleep(_LOOK_S)

    async def unlock_key(self) -> str:
        """Empty without autolock."""
        try:
            with translated():
                answer = await control_pb2_grpc.ControlServiceStub(self.channel()).GetUnlockKey(
                    control_pb2.GetUnlockKeyRequest(), timeout=ASK_S
                )
        except NotFound:
            return ""
        return answer.key

    async def stop(self) -> None:
        """Returns once the process is gone."""
        await self._process.stop()
        if self._channel is not None:
            await self._channel.close()

    async def _ask(self) -> None:
        """A server that is about to end, as that which took the unlock key, may leave this unanswered: the next one is
        asked."""
        deadline = self._clock.monotonic() + READY_S
        async with dial(self._target) as channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            while True:
                try:
                    with translated():
                        left_s = deadline - self._clock.monotonic()
                        await stub.GetCluster(control_pb2.GetClusterRequest(), timeout=left_s, wait_for_ready=True)
                    return
                except Locked:
                    raise
                except Unavailable:
                    if self._clock.monotonic() > deadline:
                        raise
                await self._clock.sleep(_LOOK_S)


def _store_words(settings: ManagerSettings, folder: Path) -> list[str]:
    """The arguments that name the store. What is secret, or long, goes into files in `folder`."""
    access = settings.store
    if not access.shared:
        return []
    words = ["--store", "etcd", "--etcd-endpoints", ",".join(access.endpoints)]
    if access.managed:
        words.append("--etcd-managed")
    if access.prefix:
        words += ["--etcd-prefix", access.prefix]
    if access.user:
        words += ["--etcd-user", access.user]
    texts = {
        "ca": access.ca_pem,
        "cert": access.certificate_pem,
        "key": access.key_pem,
        "password-file": access.password,
    }
    for flag, text in texts.items():
        if text:
            file = folder / f"etcd-{flag}"
            write_atomic(file, text.encode())
            words += [f"--etcd-{flag}", str(file)]
    return words


def program() -> list[str]:
    """How a manager's program is called: the script that stands beside this interpreter, or the same without one."""
    beside = Path(sys.executable).with_name("shoal-manager")
    if beside.exists():
        return [str(beside)]
    return [sys.executable, "-c", "from shoal.__main__ import manager; manager()"]
