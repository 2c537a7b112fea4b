"""Fault: what a failed call to etcd comes to: may it be tried again, and what is to be said.

etcd tells its errors by gRPC's code and a text of its own (etcd 3.4, etcdserver/api/v3rpc/rpctypes/error.go); where a
code stands for several things, the text decides.
"""

from __future__ import annotations

import enum
import re

import grpc
import grpc.aio

from shoal.errors import Conflict, Exhausted, InvalidArgument, NotFound, PermissionDenied, ShoalError, Unavailable

_Code = grpc.StatusCode


class Outcome(enum.Enum):
    REFUSED = "the answer is no"
    UNDONE = "certainly not done; another endpoint may do it"
    PASSING = "certainly not done; in a moment the same endpoint may do it"
    UNSURE = "it may have happened"
    STRANGER = "certainly not done; the token is not known any more"


class Fault(Exception):
    """`error` is what the store raises for it; `why` is short, for a list of endpoints with their reasons."""

    def __init__(self, outcome: Outcome, why: str, error: ShoalError) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.why = why
        self.error = error


# Refused before anything was proposed to the members (etcdserver/v3_server.go and api/v3rpc/interceptor.go).
_UNDONE = (
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: too many requests",
    "etcdserver: rpc not supported for learner",
    "raft proposal dropped",
    "failed to connect to all addresses",
)
# A learner has not caught up yet.
UNFINISHED = "in sync with leader"
# etcd refuses to change its members while it could lose its quorum by that, and for 5 s after one came back.
UNHEALTHY = "unhealthy cluster"
# A read that an election came into.
_PASSING = "etcdserver: leader changed"
# A token goes with the member's process or with time; `revision of auth store is old` when users were changed.
_STRANGER = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
NO_SPACE = "etcdserver: mvcc: database space exceeded"
_REFUSALS: dict[grpc.StatusCode, type[ShoalError]] = {
    _Code.INVALID_ARGUMENT: InvalidArgument,
    _Code.OUT_OF_RANGE: InvalidArgument,
    _Code.NOT_FOUND: NotFound,
    _Code.FAILED_PRECONDITION: Conflict,
    _Code.ALREADY_EXISTS: Conflict,
    _Code.PERMISSION_DENIED: PermissionDenied,
    _Code.RESOURCE_EXHAUSTED: Exhausted,
}
TOO_LARGE = "larger than max"
COMPACTED = "required revision has been compacted"
FUTURE = "required revision is a future revision"
_LAST_ERROR = re.compile(r"failed to connect to all addresses; last error: \w+: (?:ipv[46]:\S+: )?(.*)", re.DOTALL)


def fault_of(error: grpc.aio.AioRpcError) -> Fault:
    return fault(error.code(), error.details() or error.code().name)


def fault(code: grpc.StatusCode, details: str) -> Fault:
    why = details.removeprefix("etcdserver: ")
    if connecting := _LAST_ERROR.match(details):
        why = connecting[1]
    if "TSI_DATA_CORRUPTED" in why:
        why = "it refuses our certificate"  # TLS 1.3 tells a client only after its handshake; gRPC says no more
    if NO_SPACE in details:
        full = Exhausted(
            "etcd: the database has reached its quota",
            hint="compact and defragment it and disarm the alarm, or raise --quota-backend-bytes; nothing is lost",
        )
        return Fault(Outcome.REFUSED, why, full)
    if any(text in details for text in _STRANGER):
        return Fault(Outcome.STRANGER, why, PermissionDenied(f"etcd: {why}"))
    if "invalid user ID or password" in details:
        return Fault(Outcome.REFUSED, why, PermissionDenied(f"etcd: {why}"))
    if any(text in details for text in _UNDONE):
        return Fault(Outcome.UNDONE, why, Unavailable(f"etcd: {why}"))
    if UNHEALTHY in details:
        return Fault(Outcome.REFUSED, why, Unavailable(f"etcd: {why}", hint="bring all of its members back first"))
    if _PASSING in details:
        return Fault(Outcome.PASSING, why, Unavailable(f"etcd: {why}"))
    if (refusal := _REFUSALS.get(code)) is not None:
        return Fault(Outcome.REFUSED, why, refusal(f"etcd: {why}"))
    if code is _Code.DEADLINE_EXCEEDED:
        why = "no answer in time"
    return Fault(Outcome.UNSURE, why, Unavailable(f"etcd: {why}"))
