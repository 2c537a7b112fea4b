"""Calls on the cluster: what holds for all of it."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec

from manager import schedule
from manager.api.find import cluster_of
from manager.api.room import Room, writing
from manager.ca.authority import Authority
from manager.ca.escrow import laid
from manager.ca.lock import relocked, unlock_key_of
from manager.ca.rotation import begun
from manager.control.action import touched
from manager.doctor.facts import Verdict
from shoal import __version__, defaults
from shoal.codec import from_wire, to_wire
from shoal.errors import InvalidArgument, NotFound
from shoal.model.cluster import Cluster, ClusterSpec
from shoal.tls import root_key_of
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_HOUR_NS = 3600 * defaults.SECOND_NS
_YEAR_NS = 365 * 24 * _HOUR_NS
_MAX_HISTORY = 1000
_MAX_BACKUPS = 10_000
_VERDICTS = {each: wire.Verdict.Value(f"VERDICT_{each.name}") for each in Verdict}


class ClusterCalls:
    _room: Room

    async def GetCluster(self, _request: wire.GetClusterRequest, _context: Context) -> wire.GetClusterResponse:
        return wire.GetClusterResponse(cluster=_shown(self._cluster()), version=__version__)

    async def UpdateCluster(self, request: wire.UpdateClusterRequest, _context: Context) -> wire.UpdateClusterResponse:
        spec = from_wire(request.spec, ClusterSpec)
        check(spec)
        await self._room.check_version(self._cluster(), request.version)
        now_ns = self._room.clock.now_ns()
        seal = self._room.seal
        escrow = None
        if request.HasField("backup_passphrase"):
            escrow = await asyncio.to_thread(laid, seal, request.backup_passphrase)

        def changed() -> Cluster:
            cluster = relocked(touched(self._cluster(), now_ns, spec=spec), seal)
            return cluster if escrow is None else msgspec.structs.replace(cluster, escrow=escrow)

        await self._room.change(lambda: writing(changed()), "" if escrow is None else "another passphrase of backups")
        self._room.lock.follow(self._cluster(), seal)
        return wire.UpdateClusterResponse(cluster=_shown(self._cluster()), warnings=_warnings(self._cluster()))

    async def RotateRoot(self, request: wire.RotateRootRequest, _context: Context) -> wire.RotateRootResponse:
        if not 0 < request.within_ns <= _YEAR_NS:
            raise InvalidArgument("the deadline of a rotation is within a year")
        now_ns = self._room.clock.now_ns()
        if request.root_ca_pem or request.ca_key_pem:
            new = Authority.load(request.ca_key_pem.encode(), request.root_ca_pem)
            new.check_root(now_ns)
        else:
            new = Authority.create(self._cluster().meta.id, now_ns)
        deadline_ns = now_ns + request.within_ns
        await self._room.change(
            lambda: writing(begun(self._cluster(), new, self._room.seal, now_ns=now_ns, deadline_ns=deadline_ns)),
            "the root is being replaced",
        )
        return wire.RotateRootResponse(issuer_key=root_key_of(new.root_ca_pem), deadline_ns=deadline_ns)

    async def ExamineCluster(
        self, _request: wire.ExamineClusterRequest, _context: Context
    ) -> wire.ExamineClusterResponse:
        findings = [
            wire.Finding(check=each.check, verdict=_VERDICTS[each.verdict], detail=each.detail, hint=each.hint)
            for each in await self._room.doctor.examine()
        ]
        return wire.ExamineClusterResponse(findings=findings)

    async def GetUnlockKey(self, request: wire.GetUnlockKeyRequest, _context: Context) -> wire.GetUnlockKeyResponse:
        """A rotated key is told once this manager's file is wrapped with it; the others' follow within seconds."""
        seal = self._room.seal
        if not self._cluster().spec.autolock:
            raise NotFound("no unlock key is set", hint="'shoal swarm update --autolock' sets one")
        if request.rotate:
            now_ns = self._room.clock.now_ns()
            await self._room.change(lambda: writing(relocked(touched(self._cluster(), now_ns), seal, rotate=True)))
        key = unlock_key_of(self._cluster(), seal)
        assert key is not None
        self._room.lock.follow(self._cluster(), seal)
        return wire.GetUnlockKeyResponse(key=key.text)

    def _cluster(self) -> Cluster:
        return cluster_of(self._room.mirror)


def check(spec: ClusterSpec) -> None:
    """Raises InvalidArgument for what no cluster can be."""
    if spec.heartbeat_ns < defaults.SECOND_NS // 10:
        raise InvalidArgument("invalid dispatcher heartbeat period", hint="it is 0.1 s at least")
    if spec.node_timeout_ns < 2 * spec.heartbeat_ns:
        raise InvalidArgument("the node timeout must be two heartbeats at least")
    if spec.certificate_life_ns < _HOUR_NS:
        raise InvalidArgument("certificate expiry must be at least 1h")
    if not 0 <= spec.certificate_grace_ns <= _YEAR_NS:
        raise InvalidArgument("the grace of certificates must be between 0 and a year")
    if spec.audit_retention_ns < _HOUR_NS:
        raise InvalidArgument("the audit record is kept for at least 1h")
    if spec.backup_schedule:
        schedule.check(spec.backup_schedule)
        if not spec.backup_dir.startswith("/"):
            raise InvalidArgument(
                f"backups go into a directory of the leader's host, not into {spec.backup_dir!r}",
                hint="give its whole path with --backup-dir",
            )
        if not 0 < spec.backup_keep <= _MAX_BACKUPS:
            raise InvalidArgument(f"{spec.backup_keep} backups cannot be kept", hint=f"keep 1 to {_MAX_BACKUPS}")
    if spec.task_history > _MAX_HISTORY:
        raise InvalidArgument(f"task history limit {spec.task_history} is above {_MAX_HISTORY}")
    try:
        pool = ipaddress.IPv4Network(spec.address_pool)
    except ValueError as error:
        raise InvalidArgument(f"invalid default address pool: {error}", hint="write it as 10.0.0.0/8") from error
    if not pool.prefixlen <= spec.address_pool_prefix <= 28:
        raise InvalidArgument(
            f"subnets of /{spec.address_pool_prefix} cannot be cut from the pool {pool}",
            hint=f"choose a mask length from {pool.prefixlen} to 28",
        )


def _warnings(cluster: Cluster) -> list[str]:
    if cluster.spec.backup_schedule and not cluster.backups_open:
        return [
            "backups do not hold the cluster's key: to restore one, the file seal.key of a manager (in "
            "/var/lib/shoal/manager) is needed too; keep a copy of it, or give --backup-passphrase-file"
        ]
    return []


def _shown(cluster: Cluster) -> types_pb2.Cluster:
    """Without what is sealed."""
    shown = to_wire(cluster, types_pb2.Cluster)
    shown.ClearField("sealed_unlock_key")
    shown.ClearField("escrow")
    for field in ("sealed_ca_key", "sealed_worker_secret", "sealed_manager_secret"):
        shown.ClearField(field)
        if shown.HasField("rotation"):
            shown.rotation.ClearField(field)
    return shown
