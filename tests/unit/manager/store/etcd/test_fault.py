import pytest
from grpc import StatusCode

from manager.store.etcd.fault import Outcome, fault
from shoal.errors import Exhausted, InvalidArgument, NotFound, PermissionDenied, Unavailable


@pytest.mark.parametrize(
    ("code", "details", "outcome", "kind"),
    [
        (StatusCode.UNAVAILABLE, "etcdserver: no leader", Outcome.UNDONE, Unavailable),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Outcome.UNDONE, Unavailable),
        (StatusCode.UNKNOWN, "raft proposal dropped", Outcome.UNDONE, Unavailable),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out", Outcome.UNSURE, Unavailable),
        (StatusCode.UNAVAILABLE, "Socket closed", Outcome.UNSURE, Unavailable),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Outcome.UNSURE, Unavailable),
        (StatusCode.CANCELLED, "", Outcome.UNSURE, Unavailable),
        (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", Outcome.STRANGER, PermissionDenied),
        (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Outcome.REFUSED, PermissionDenied),
        (
            StatusCode.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            Outcome.REFUSED,
            PermissionDenied,
        ),
        (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", Outcome.REFUSED, NotFound),
        (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is …", Outcome.REFUSED, InvalidArgument),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Outcome.REFUSED, Exhausted),
    ],
)
def test_what_a_failure_comes_to(code, details, outcome, kind):
    found = fault(code, details)
    assert (found.outcome, type(found.error)) == (outcome, kind)


def test_a_refused_connection_is_said_shortly():
    details = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:2379: "
        "Failed to connect to remote host: connect: Connection refused (111)"
    )
    found = fault(StatusCode.UNAVAILABLE, details)
    assert found.outcome is Outcome.UNDONE
    assert found.why == "Failed to connect to remote host: connect: Connection refused (111)"


def test_a_full_database_says_the_way_out():
    assert "compact and defragment it" in str(
        fault(StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded").error
    )
