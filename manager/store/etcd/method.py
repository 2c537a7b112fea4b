"""etcd's calls, by the path that it serves them at, each with the message that it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from shoal.etcd.v3 import wire_pb2 as wire

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """`request` and `answer` are message types; `streams` in both directions, or one of each."""

    path: str
    request: type[Q]
    answer: type[A]
    streams: bool = False


RANGE = Method("/etcdserverpb.KV/Range", wire.RangeRequest, wire.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", wire.TxnRequest, wire.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", wire.CompactionRequest, wire.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", wire.WatchRequest, wire.WatchResponse, streams=True)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", wire.LeaseGrantRequest, wire.LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", wire.LeaseRevokeRequest, wire.LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", wire.LeaseKeepAliveRequest, wire.LeaseKeepAliveResponse, streams=True
)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", wire.AuthenticateRequest, wire.AuthenticateResponse)
MEMBER_ADD = Method("/etcdserverpb.Cluster/MemberAdd", wire.MemberAddRequest, wire.MemberAddResponse)
MEMBER_REMOVE = Method("/etcdserverpb.Cluster/MemberRemove", wire.MemberRemoveRequest, wire.MemberRemoveResponse)
MEMBER_UPDATE = Method("/etcdserverpb.Cluster/MemberUpdate", wire.MemberUpdateRequest, wire.MemberUpdateResponse)
MEMBER_LIST = Method("/etcdserverpb.Cluster/MemberList", wire.MemberListRequest, wire.MemberListResponse)
MEMBER_PROMOTE = Method("/etcdserverpb.Cluster/MemberPromote", wire.MemberPromoteRequest, wire.MemberPromoteResponse)
ALARM = Method("/etcdserverpb.Maintenance/Alarm", wire.AlarmRequest, wire.AlarmResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", wire.StatusRequest, wire.StatusResponse)
DEFRAGMENT = Method("/etcdserverpb.Maintenance/Defragment", wire.DefragmentRequest, wire.DefragmentResponse)
MOVE_LEADER = Method("/etcdserverpb.Maintenance/MoveLeader", wire.MoveLeaderRequest, wire.MoveLeaderResponse)
