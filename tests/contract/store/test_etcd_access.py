"""Who etcd lets in, and what is said to whom it does not."""

import asyncio

import pytest
import trustme
from msgspec.structs import replace

from manager.store.etcd.keyspace import Keyspace
from manager.store.etcd.watch import watch
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable
from tests.contract.store.access import with_password
from tests.contract.store.steps import put, take
from tests.contract.store.witness import CLOCK, opened, watched


async def test_a_token_that_etcd_forgot_is_fetched_anew(tmp_path):
    """Tokens live in the memory of etcd's process."""
    with with_password(tmp_path) as (member, settings):
        settings = replace(settings, prefix="/test-mine")
        async with opened(settings) as store, watched(store) as watcher:
            await store.txn(put("/before"))
            await watcher.until("/before")
            await asyncio.to_thread(member.kill)
            member.start()
            await asyncio.to_thread(member.ready)
            await store.txn(put("/after"))
            await watcher.until("/after")
            assert watcher.keys == ["/before", "/after"]


async def test_a_wrong_password_is_refused(password_etcd):
    with pytest.raises(PermissionDenied, match="invalid user ID or password"):
        async with opened(replace(password_etcd, password="guessed")):
            pass


async def test_no_user_is_refused(password_etcd):
    with pytest.raises(InvalidArgument, match="user name is empty"):
        async with opened(replace(password_etcd, user="")):
            pass


async def test_a_user_sees_only_what_is_his(password_etcd):
    settings = replace(password_etcd, prefix="/theirs")
    with pytest.raises(PermissionDenied, match="permission denied"):
        async with opened(settings):
            pass
    async with opened(replace(password_etcd, prefix="/test-mine")) as store:
        with pytest.raises(PermissionDenied, match="permission denied"):
            await take(watch(store.client, Keyspace("/theirs"), "/", after=1, clock=CLOCK), 1)


async def test_who_does_not_fit_the_certificates_is_refused_with_the_reason(tls_etcd):
    strangers = [
        replace(tls_etcd, certificate_pem="", key_pem=""),
        replace(tls_etcd, ca_pem=trustme.CA().cert_pem.bytes().decode()),
        replace(tls_etcd, server_name="other.test"),
    ]
    refusals = await asyncio.gather(*(refused(settings) for settings in strangers))
    assert all("etcd does not answer (127.0.0.1:" in refusal for refusal in refusals)
    assert "CERTIFICATE_VERIFY_FAILED" in refusals[1]
    assert "Hostname Verification Check failed" in refusals[2]


async def refused(settings) -> str:
    with pytest.raises(Unavailable) as refusal:
        async with opened(settings):
            pass
    return refusal.value.message


async def test_renewed_certificates_are_used_without_a_gap(tls_etcd):
    settings = replace(tls_etcd, prefix="/renewed")
    async with opened(settings) as store, watched(store) as watcher:
        await store.txn(put("/before"))
        await watcher.until("/before")
        writing = asyncio.gather(*(store.txn(put(f"/{number}")) for number in range(50)))
        store.use(replace(settings, server_name="localhost"))
        await writing
        await store.txn(put("/after"))
        await watcher.until("/after")
        assert len(watcher.keys) == len(set(watcher.keys)) == 52
