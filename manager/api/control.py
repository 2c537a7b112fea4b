"""ControlService: the calls of all nouns on the wire."""

from __future__ import annotations

from manager.api.audit import AuditCalls
from manager.api.backup import BackupCalls
from manager.api.cluster import ClusterCalls
from manager.api.network import NetworkCalls
from manager.api.node import NodeCalls
from manager.api.room import Room
from manager.api.service import ServiceCalls
from manager.api.task import TaskCalls
from manager.api.token import TokenCalls
from manager.api.user import UserCalls
from shoal.v1.control_pb2_grpc import ControlServiceServicer


class ControlService(
    ClusterCalls,
    TokenCalls,
    UserCalls,
    AuditCalls,
    BackupCalls,
    NodeCalls,
    ServiceCalls,
    TaskCalls,
    NetworkCalls,
    ControlServiceServicer,
):
    def __init__(self, room: Room) -> None:
        self._room = room
