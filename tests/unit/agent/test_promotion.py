"""The steps to a manager and back: from any place the next one leads on, and at the end there is none."""

from __future__ import annotations

import pytest

from agent.promotion import Step, next_step
from manager.ca.authority import Authority
from shoal.model.node import Role
from shoal.tls import Identity

HERE = "10.9.0.2"


def identity(role: Role, address: str = HERE) -> Identity:
    now_ns = 1_700_000_000 * 10**9
    return Authority.create("c1", now_ns).new_identity(
        node_id="n2", cluster_id="c1", role=role, life_ns=10**15, now_ns=now_ns, address=address
    )


@pytest.mark.parametrize("role", [Role.WORKER, Role.MANAGER])
@pytest.mark.parametrize("manages", [False, True])
def test_nothing_is_done_before_a_manager_has_said_what_is_wanted(role: Role, manages: bool) -> None:
    assert next_step(None, identity(role), manages=manages, address=HERE) is None


@pytest.mark.parametrize("wanted", [Role.WORKER, Role.MANAGER])
@pytest.mark.parametrize("role", [Role.WORKER, Role.MANAGER])
@pytest.mark.parametrize("manages", [False, True])
def test_every_beginning_leads_to_the_role_that_is_wanted(wanted: Role, role: Role, manages: bool) -> None:
    own = identity(role)
    for _ in range(4):
        match next_step(wanted, own, manages=manages, address=HERE):
            case Step.RENEW:
                own = identity(wanted)
            case Step.ENLIST:
                assert own.role is Role.MANAGER
                manages = True
            case Step.RESIGN:
                manages = False
            case None:
                break
    assert next_step(wanted, own, manages=manages, address=HERE) is None
    assert manages is (wanted is Role.MANAGER)


def test_a_certificate_without_the_address_is_renewed_before_a_manager_starts() -> None:
    joined = identity(Role.MANAGER, address="")
    assert next_step(Role.MANAGER, joined, manages=False, address=HERE) is Step.RENEW
    assert next_step(Role.MANAGER, joined, manages=False, address="a-name") is Step.ENLIST
