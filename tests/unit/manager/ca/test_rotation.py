"""The root is replaced while everything runs: who trusts whom at every step, who comes back, and who does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
import pytest

from agent.certificate import restore
from agent.join import join, parse_token
from manager.api.permission import Permission
from manager.ca import rotation
from manager.ca.authority import Authority, Seal
from manager.ca.rpc import CertificateServicer, JoinServicer
from manager.ca.signer import authority_of
from manager.ca.token import fingerprint, token_of
from manager.control.action import Put as Writing
from manager.control.action import change, commit
from manager.founding import with_former
from manager.store.view import View
from shoal.errors import Conflict, InvalidArgument, PermissionDenied
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, Role
from shoal.model.user import UserRole
from shoal.rpc import dial, new_server, translated
from shoal.tls import Identity, new_key, root_key_of, server_credentials
from shoal.v1 import ca_pb2, ca_pb2_grpc, control_pb2, control_pb2_grpc
from tests.unit.manager.api.test_permission import nodes, user
from tests.unit.manager.conftest import NOW, node

DAY_NS = 24 * 3600 * 10**9
HOUR_NS = DAY_NS // 24
SEAL = Seal(b"k" * 32)


def identity(
    authority: Authority, node_id: str, now_ns: int, role: Role = Role.WORKER, life_ns: int = DAY_NS
) -> Identity:
    return authority.new_identity(node_id=node_id, cluster_id="c1", role=role, life_ns=life_ns, now_ns=now_ns)


class Times:
    """The same cluster before, while and after its root is replaced, as the record has it."""

    def __init__(self, cluster: Cluster, seal: Seal, now_ns: int, new: Authority | None = None) -> None:
        self.new = new or Authority.create("c1", now_ns)
        self.before = cluster
        self.during = rotation.begun(cluster, self.new, seal, now_ns=now_ns, deadline_ns=now_ns + HOUR_NS)
        view = View([self.during])
        (action,) = rotation.reconcile(view, "c1", now_ns, str).actions
        assert isinstance(action, Writing) and isinstance(action.value, Cluster)
        self.after = action.value


@pytest.fixture
def times(manager: Any) -> Times:
    return Times(manager.mirror.cluster, manager.seal, manager.clock.now_ns())


async def answers(server: Identity, client: Identity) -> bool:
    """Whether the two come together, over real mutual TLS."""

    class Renewal(ca_pb2_grpc.CertificateServiceServicer):
        async def RenewCertificate(self, request: Any, context: Any) -> Any:
            return ca_pb2.RenewCertificateResponse()

    serving = new_server()
    ca_pb2_grpc.add_CertificateServiceServicer_to_server(Renewal(), serving)
    port = serving.add_secure_port("127.0.0.1:0", server_credentials(lambda: server, require_client=True))
    await serving.start()
    try:
        async with dial(f"127.0.0.1:{port}", identity=client) as channel:
            stub = ca_pb2_grpc.CertificateServiceStub(channel)
            await stub.RenewCertificate(ca_pb2.RenewCertificateRequest(), timeout=5)
    except grpc.aio.AioRpcError:
        return False
    finally:
        await serving.stop(None)
    return True


async def test_at_every_step_all_who_moved_and_all_who_did_not_come_together(manager: Any, times: Times) -> None:
    now_ns = manager.clock.now_ns()
    old, between, new = (authority_of(each, SEAL) for each in (times.before, times.during, times.after))
    # As nodes are while they move: the old certificate with the old root; the new one with both roots; then without.
    moving = [
        identity(old, "m1", now_ns, Role.MANAGER),
        msgspec.structs.replace(identity(old, "m1", now_ns, Role.MANAGER), root_ca_pem=between.trust_pem),
        identity(between, "m1", now_ns, Role.MANAGER),
    ]
    moved = [
        moving[2],
        msgspec.structs.replace(moving[2], root_ca_pem=new.trust_pem),
        identity(new, "m1", now_ns, Role.MANAGER),
    ]
    for stage in (moving, moved):
        for server in stage:
            for client in stage:
                assert await answers(server, client)
    # And in the end the old one opens nothing any more.
    assert not await answers(moved[1], moving[0])


async def test_who_missed_it_still_finds_the_way_even_past_a_second_time(manager: Any, times: Times) -> None:
    now_ns = manager.clock.now_ns()
    late = identity(authority_of(times.before, SEAL), "m1", now_ns, Role.MANAGER)
    again = Times(times.after, SEAL, now_ns)
    for cluster in (times.after, again.during, again.after):
        server = identity(authority_of(cluster, SEAL), "m1", now_ns, Role.MANAGER)
        everybody = msgspec.structs.replace(server, root_ca_pem="".join(rotation.roots_known(cluster)))
        assert await answers(everybody, late)


def test_the_new_root_signs_from_the_start_and_tokens_change_at_the_end(times: Times) -> None:
    key = root_key_of(times.new.root_ca_pem)
    assert times.during.rotation is not None
    now_ns = times.during.rotation.began_ns
    for cluster in (times.during, times.after):
        assert identity(authority_of(cluster, SEAL), "w1", now_ns).info.issuer_key == key
    before, during, after = (token_of(each, Role.WORKER, SEAL) for each in (times.before, times.during, times.after))
    assert before == during
    assert (after.fingerprint, after.secret != before.secret) == (fingerprint(times.new.root_ca_pem), True)
    assert times.new.key_pem not in [times.during.rotation, times.after.sealed_ca_key]


def test_it_ends_when_all_have_moved_or_the_deadline_has_come(times: Times) -> None:
    began = times.during.rotation
    assert began is not None
    waiting = node("w1")
    described = msgspec.structs.replace(
        waiting.description,
        certificate=identity(authority_of(times.during, SEAL), "w1", began.began_ns).info,
    )
    moved = msgspec.structs.replace(waiting, description=described)
    early = rotation.reconcile(View([times.during, waiting]), "c1", began.deadline_ns - 1, str)
    assert (early.actions, early.requeue_at_ns) == ((), began.deadline_ns)
    assert rotation.reconcile(View([times.during, waiting]), "c1", began.deadline_ns, str).actions
    assert rotation.reconcile(View([times.during, moved]), "c1", began.deadline_ns - 1, str).actions


def test_the_former_root_is_forgotten_when_nobody_may_come_back_by_it(times: Times) -> None:
    (former,) = times.after.former_roots
    view = View([times.after])
    assert rotation.reconcile(view, "c1", former.until_ns - 1, str) == rotation.Decision(requeue_at_ns=former.until_ns)
    (action,) = rotation.reconcile(view, "c1", former.until_ns, str).actions
    assert isinstance(action, Writing) and isinstance(action.value, Cluster)
    assert action.value.former_roots == ()
    assert rotation.reconcile(View([action.value]), "c1", former.until_ns, str) == rotation.NOTHING


def test_one_at_a_time_and_not_to_itself(times: Times) -> None:
    with pytest.raises(Conflict, match="is being replaced already"):
        rotation.begun(times.during, Authority.create("c1", NOW), SEAL, now_ns=NOW, deadline_ns=NOW)
    with pytest.raises(Conflict, match="is the cluster's root already"):
        rotation.begun(times.before, authority_of(times.before, SEAL), SEAL, now_ns=NOW, deadline_ns=NOW)


@pytest.fixture
async def address(manager: Any) -> AsyncIterator[str]:
    """Of a manager, with its join port next to it, whose own node has moved to whatever the record says."""
    current = manager.room.authority

    def own() -> Identity:
        return identity(current(), "m1", manager.clock.now_ns(), Role.MANAGER)

    shown = own()
    seen = manager.mirror.cluster.meta.version

    def load() -> Identity:
        nonlocal shown, seen
        if manager.mirror.cluster.meta.version != seen:
            shown, seen = own(), manager.mirror.cluster.meta.version
        return shown

    join = JoinServicer(
        ledger=manager.room.ledger,
        store_kind="sqlite",
        mirror=manager.mirror,
        authority=current,
        seal=manager.seal,
        clock=manager.clock,
        managers=list,
    )
    strangers = new_server()
    ca_pb2_grpc.add_JoinServiceServicer_to_server(join, strangers)
    members = new_server(interceptors=(Permission(manager.mirror, manager.clock).gate(),))
    renewal = CertificateServicer(mirror=manager.mirror, authority=current, clock=manager.clock)
    ca_pb2_grpc.add_CertificateServiceServicer_to_server(renewal, members)
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, members)
    port = strangers.add_secure_port("127.0.0.1:0", server_credentials(load, require_client=False))
    members.add_secure_port(
        f"127.0.0.1:{port - 1}",
        server_credentials(lambda: with_former(load(), manager.mirror), require_client=True),
    )
    for server in (strangers, members):
        await server.start()
    yield f"127.0.0.1:{port - 1}"
    for server in (strangers, members):
        await server.stop(None)


async def rotate(manager: Any, *, holding: dict[str, Identity]) -> None:
    """From the first step to the last, with these nodes' certificates known to the cluster."""
    for node_id, own in holding.items():
        found = manager.mirror.nodes[node_id]
        described = msgspec.structs.replace(found.description, certificate=own.info)
        done = await commit(manager.store, [change(msgspec.structs.replace(found, description=described), "test")])
        await manager.mirror.reached(done.revision)
    await manager.control.RotateRoot(control_pb2.RotateRootRequest(within_ns=1), None)
    decision = rotation.reconcile(manager.mirror, "c1", manager.clock.now_ns(), str)
    done = await commit(manager.store, decision.actions)
    await manager.mirror.reached(done.revision)


async def test_a_node_that_missed_it_comes_back_by_the_key_that_it_last_had(manager: Any, address: str) -> None:
    now_ns = manager.clock.now_ns()
    missed = identity(manager.authority, "w1", now_ns)
    await rotate(manager, holding={"w1": missed})
    async with dial(address, identity=missed) as channel:
        with pytest.raises(PermissionDenied, match="of a root that was replaced"), translated():
            await ca_pb2_grpc.CertificateServiceStub(channel).RenewCertificate(ca_pb2.RenewCertificateRequest())
    back = await restore(missed, address)
    assert back.info.issuer_key == root_key_of(manager.mirror.cluster.root_ca_pem)
    assert back.root_ca_pem == manager.mirror.cluster.root_ca_pem
    assert await answers(identity(manager.room.authority(), "m1", now_ns, Role.MANAGER), back)


async def test_whoever_has_the_old_roots_key_gets_in_as_nobody(manager: Any, address: str) -> None:
    now_ns = manager.clock.now_ns()
    own = {
        "w1": identity(manager.authority, "w1", now_ns),
        "m1": identity(manager.authority, "m1", now_ns, Role.MANAGER),
    }
    await rotate(manager, holding=own)
    for node_id, role in (("w1", Role.WORKER), ("m1", Role.MANAGER)):
        forged = identity(manager.authority, node_id, now_ns, role)
        with pytest.raises(PermissionDenied, match="of a root that was replaced, and not the last it had"):
            await restore(forged, address)
        with pytest.raises(PermissionDenied, match="of a root that was replaced"):
            await nodes(address, forged)


async def test_users_keep_their_files_for_as_long_as_nodes_may_come_back(manager: Any, address: str) -> None:
    own = await user(manager, "ann", UserRole.VIEWER)
    await rotate(manager, holding={})
    assert await nodes(address, own) == 2


async def test_an_own_root_is_looked_at_first(manager: Any) -> None:
    own = Authority.create("mine", manager.clock.now_ns())
    other = Authority.create("mine", manager.clock.now_ns())
    wrong = [
        (own.root_ca_pem, other.key_pem.decode(), "does not belong to its root"),
        ("junk", own.key_pem.decode(), "damaged"),
        (identity(own, "x", manager.clock.now_ns()).certificate_pem, "", "damaged"),
    ]
    for root, key, sentence in wrong:
        with pytest.raises(InvalidArgument, match=sentence):
            request = control_pb2.RotateRootRequest(root_ca_pem=root, ca_key_pem=key, within_ns=1)
            await manager.control.RotateRoot(request, None)
    with pytest.raises(InvalidArgument, match="within a year"):
        await manager.control.RotateRoot(control_pb2.RotateRootRequest(), None)
    request = control_pb2.RotateRootRequest(
        root_ca_pem=own.root_ca_pem, ca_key_pem=own.key_pem.decode(), within_ns=HOUR_NS
    )
    answer = await manager.control.RotateRoot(request, None)
    assert answer.issuer_key == root_key_of(own.root_ca_pem)
    assert manager.room.authority().root_ca_pem == own.root_ca_pem


async def test_the_keys_of_both_roots_are_sealed_at_every_step(manager: Any, tmp_path: Any) -> None:
    new = Authority.create("c1", manager.clock.now_ns())
    request = control_pb2.RotateRootRequest(
        root_ca_pem=new.root_ca_pem, ca_key_pem=new.key_pem.decode(), within_ns=HOUR_NS
    )
    await manager.control.RotateRoot(request, None)
    secrets = [b"".join(key.key_pem.splitlines()[1:-1]) for key in (new, manager.authority)]
    values = b"".join(record.value for record in (await manager.store.read("/")).records)
    shown = (await manager.control.GetCluster(control_pb2.GetClusterRequest(), None)).cluster
    assert shown.rotation.root_ca_pem and not shown.rotation.sealed_ca_key
    for secret in secrets:
        for text in (values, shown.SerializeToString()):
            assert secret[:40] not in text.replace(b"\n", b"")


async def test_a_host_joins_by_the_token_of_the_hour_whenever_the_managers_certificate_was_made(manager: Any) -> None:
    current = manager.room.authority

    def own() -> Identity:
        return identity(current(), "m1", manager.clock.now_ns(), Role.MANAGER)

    async def comes(shown: Identity) -> Identity:
        """A host, to a manager that shows this."""
        door = JoinServicer(
            ledger=manager.room.ledger,
            mirror=manager.mirror,
            authority=current,
            seal=manager.seal,
            clock=manager.clock,
            managers=list,
            store_kind="sqlite",
        )
        server = new_server()
        ca_pb2_grpc.add_JoinServiceServicer_to_server(door, server)
        port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: shown, require_client=False))
        await server.start()
        token = parse_token(token_of(manager.mirror.cluster, Role.WORKER, manager.seal).text)
        where = f"127.0.0.1:{port - 1}"
        joined = await join(token, where, key_pem=new_key(), availability=Availability.ACTIVE, hostname="n7")
        await server.stop(None)
        return joined.identity

    before = own()
    await manager.control.RotateRoot(control_pb2.RotateRootRequest(within_ns=HOUR_NS), None)
    between = own()
    for shown in (before, between):
        assert (await comes(shown)).root_ca_pem == current().trust_pem
    deadline_ns = manager.mirror.cluster.rotation.deadline_ns
    done = await commit(manager.store, rotation.reconcile(manager.mirror, "c1", deadline_ns, str).actions)
    await manager.mirror.reached(done.revision)
    for shown in (between, own()):
        assert (await comes(shown)).root_ca_pem == manager.mirror.cluster.root_ca_pem
