"""Etcd: this host's member of etcd, where the managers run it themselves: a supervised process of the host's binary.

Only managers may connect, and other members are managers: etcd checks both against the name that only a manager's
certificate has. It shows this node's own certificate, from a file that it reads again at every handshake, so a renewed
one is live at once; another root of trust needs a restart, for which members take turns (`agent/turn.py`).
`manager/store/member.py` brings members into the cluster and lets them go, `manager/store/etcd/compaction.py` forgets
history: etcd itself does neither.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import grpc.aio
import msgspec

from agent.supervise import Supervised, stop_process
from agent.turn import ask, turn
from shoal.clock import Clock
from shoal.errors import ShoalError, Unavailable
from shoal.etcd.v3 import wire_pb2 as wire
from shoal.files import read_optional, write_atomic
from shoal.rpc import dial
from shoal.settings import ETCD_CLIENT_PORT, ETCD_PEER_PORT, Paths
from shoal.tasks import first_of
from shoal.tls import MANAGER_NAME, Identity

log = logging.getLogger(__name__)

READY_S = 30.0
_LOOK_S = 0.1
# A leader that is gone is missed after 0.75 to 1.5 s; a disk that takes half a second to sync unseats nobody.
_HEARTBEAT_MS = 100
_ELECTION_MS = 750
# What etcd keeps in memory for members that lag: entries, each up to 1.5 MiB (3.4 would keep 100,000).
_SNAPSHOT_COUNT = 5_000
_QUOTA_BYTES = 4 << 30
_PROGRESS = "5s"


class MemberSettings(msgspec.Struct, frozen=True):
    """How this host's member is started, each time. `peers` are all members, this one too, by name and peer URL, as
    they are when it first starts: alone it founds a cluster, with others it `joins` one that has it as a learner
    already. `alone` makes what this member knows a cluster of its own, after the others were lost: for one start."""

    name: str
    address: str
    cluster_id: str
    peers: tuple[tuple[str, str], ...] = ()
    joins: bool = False
    alone: bool = False
    quota_bytes: int = _QUOTA_BYTES
    client_port: int = ETCD_CLIENT_PORT
    peer_port: int = ETCD_PEER_PORT

    @property
    def endpoint(self) -> str:
        """Where managers reach it."""
        return _host_port(self.address, self.client_port)

    @property
    def peer_url(self) -> str:
        """Where the other members reach it."""
        return f"https://{_host_port(self.address, self.peer_port)}"

    def argv(self, folder: Path) -> list[str]:
        """etcd's arguments, with its files in `folder`."""
        everywhere = "[::]" if ":" in self.address else "0.0.0.0"
        peers = self.peers or ((self.name, self.peer_url),)
        identity, root = str(folder / _IDENTITY), str(folder / _ROOT)
        words = ["--name", self.name, "--data-dir", str(folder / "data")]
        words += ["--listen-client-urls", f"https://{everywhere}:{self.client_port}"]
        words += ["--advertise-client-urls", f"https://{self.endpoint}"]
        words += ["--listen-peer-urls", f"https://{everywhere}:{self.peer_port}"]
        words += ["--initial-advertise-peer-urls", self.peer_url]
        words += ["--initial-cluster", ",".join(f"{name}={url}" for name, url in peers)]
        words += ["--initial-cluster-state", "existing" if self.joins else "new"]
        words += ["--initial-cluster-token", self.cluster_id]
        words += ["--cert-file", identity, "--key-file", identity, "--trusted-ca-file", root]
        words += ["--client-cert-auth", "--client-cert-allowed-hostname", MANAGER_NAME]
        words += ["--peer-cert-file", identity, "--peer-key-file", identity, "--peer-trusted-ca-file", root]
        words += ["--peer-client-cert-auth", "--peer-cert-allowed-hostname", MANAGER_NAME]
        # It would look up who calls by the names in his certificate, which no DNS knows.
        words += ["--experimental-peer-skip-client-san-verification"]
        words += ["--heartbeat-interval", str(_HEARTBEAT_MS), "--election-timeout", str(_ELECTION_MS), "--pre-vote"]
        words += ["--snapshot-count", str(_SNAPSHOT_COUNT), "--quota-backend-bytes", str(self.quota_bytes)]
        # So that a watch of what seldom changes does not fall behind the compaction.
        words += ["--experimental-watch-progress-notify-interval", _PROGRESS]
        # The gateway to HTTP dials etcd itself, with a name that its own check refuses.
        words += ["--enable-grpc-gateway=false", "--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"]
        if self.alone:
            words += ["--force-new-cluster"]
        return words


_IDENTITY = "identity.pem"
_ROOT = "root.pem"
# There while the process may still trust what stood in _ROOT before.
_OUTDATED = "outdated"


class EtcdProcess:
    """Started by `run`, which lasts until `stop`; it outlives an agent that dies. `show` an identity before."""

    def __init__(self, settings: MemberSettings, paths: Paths, *, clock: Clock) -> None:
        """Raises Unavailable where no etcd is installed."""
        self.settings = settings
        self._folder = paths.etcd
        self._clock = clock
        self._identity: Identity | None = None
        self._outdated = asyncio.Event()
        self._process = Supervised(
            [_program(), *settings.argv(self._folder)],
            pid_file=paths.run / "etcd.pid",
            log_file=paths.data / "etcd.log",
            clock=clock,
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew())
            await self._process.run()
            renewing.cancel()

    async def show(self, identity: Identity) -> None:
        """Let etcd show what `identity` says from the next handshake on; and trust it once it was restarted, where that
        is another root than before."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        self._identity = identity
        root, outdated = self._folder / _ROOT, self._folder / _OUTDATED
        # One file for both: certificate and key always match.
        write_atomic(self._folder / _IDENTITY, (identity.certificate_pem + identity.key_pem).encode())
        if read_optional(root) != identity.root_ca_pem.encode():
            outdated.touch()
            write_atomic(root, identity.root_ca_pem.encode())
        if self._process.running() is None:
            outdated.unlink(missing_ok=True)
        elif outdated.exists():
            self._outdated.set()

    async def ready(self, identity: Identity) -> None:
        """Return once it serves and knows of a leader. Raises ShoalError with what it said when it dies meanwhile, or
        does not in 30 s."""
        try:
            async with asyncio.timeout(READY_S):
                await first_of(self._serving(identity), self.failed())
        except TimeoutError as error:
            raise Unavailable(
                f"etcd on {self.settings.endpoint} has no leader after {READY_S:g} s",
                hint="see that its other members run and can be reached",
            ) from error

    async def failed(self) -> None:
        """Raises ShoalError, with what it said, at its next end that nobody asks for; returns never."""
        await self._process.died()
        raise ShoalError(f"etcd cannot run: {_told(self._process.last_words())}")

    async def stop(self) -> None:
        """Returns once the process is gone. Its data stay."""
        await self._process.stop()

    async def forget(self) -> None:
        """Stop, and remove its data: the member was removed from its cluster, or the cluster is left."""
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _renew(self) -> None:
        """Restart it when it trusts what it should not any more; what it should, it reads only then."""
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            process, identity = self._process.running(), self._identity
            if process is None or identity is None:
                continue
            async with turn(self._local, identity, clock=self._clock):
                log.info("etcd is restarted: it is to trust another root")
                await stop_process(process)  # `run` starts it again
                (self._folder / _OUTDATED).unlink(missing_ok=True)
                await self._back(identity)

    async def _back(self, identity: Identity) -> None:
        """It serves again, or does not in time, which the others need not wait for."""
        try:
            async with asyncio.timeout(READY_S):
                await self._serving(identity)
        except TimeoutError:
            log.warning("etcd does not serve %g s after its restart", READY_S)

    @property
    def _local(self) -> str:
        return f"127.0.0.1:{self.settings.client_port}"

    async def _serving(self, identity: Identity) -> None:
        async with dial(self._local, identity=identity) as channel:
            while True:
                try:
                    status = await ask(channel, "Maintenance/Status", wire.StatusRequest(), wire.StatusResponse)
                except grpc.aio.AioRpcError as error:
                    log.debug("etcd does not serve yet: %s", error.details())
                else:
                    if status.leader:
                        return
                await self._clock.sleep(_LOOK_S)


class _LogLine(msgspec.Struct):
    msg: str = ""
    error: str = ""


def _told(line: str) -> str:
    """What a line of etcd's log comes to."""
    try:
        told = msgspec.json.decode(line, type=_LogLine)
    except msgspec.DecodeError:
        return line or "it said nothing"
    return ": ".join(filter(None, (told.msg, told.error)))


def _program() -> str:
    program = shutil.which("etcd")
    if program is None:
        raise Unavailable(
            "there is no etcd on this host",
            hint="install it (apt-get install etcd-server; systemctl disable --now etcd), or use one that runs "
            "elsewhere with --etcd-endpoints",
        )
    return program


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
