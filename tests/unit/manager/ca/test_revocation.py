"""How long a removed node's certificates are remembered."""

from __future__ import annotations

import msgspec

from manager.ca import revocation
from manager.control.action import Delete
from manager.store.view import View
from shoal import defaults
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import CertificateInfo
from tests.unit.manager.conftest import NOW, node

HOUR_NS = 3600 * 10**9
CLUSTER = Cluster(Meta("c1"), defaults.CLUSTER)


def reconciled(found: revocation.Revocation, now_ns: int) -> revocation.Decision:
    return revocation.reconcile(View([found]), found.meta.id, now_ns, str)


def test_until_the_last_certificate_that_it_may_hold_has_run_out_on_every_clock() -> None:
    assert revocation.revoking(node("w1"), CLUSTER, NOW).until_ns == NOW + 25 * HOUR_NS
    described = msgspec.structs.replace(node("w1").description, certificate=CertificateInfo("", "", NOW + 90 * HOUR_NS))
    longer = msgspec.structs.replace(node("w1"), description=described)
    assert revocation.revoking(longer, CLUSTER, NOW).until_ns == NOW + 91 * HOUR_NS


def test_and_not_longer() -> None:
    found = revocation.revoking(node("w1"), CLUSTER, NOW)
    early = reconciled(found, found.until_ns - 1)
    assert (early.actions, early.requeue_at_ns) == ((), found.until_ns)
    (action,) = reconciled(found, found.until_ns).actions
    assert isinstance(action, Delete)
    assert action.key == "/revocation/w1"
