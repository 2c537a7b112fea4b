"""Access: the store that a manager's settings name, opened; and one that the managers run themselves followed, as its
members come and go and this manager's certificate is renewed."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from manager.bootstrap import keep_copy
from manager.control.roster import members_of
from manager.seat import Seat
from manager.store.base import Store
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from manager.store.sqlite.store import SqliteStore
from shoal.clock import Clock
from shoal.errors import NotFound, Unavailable
from shoal.model.access import StoreAccess
from shoal.settings import ETCD_PREFIX
from shoal.tls import MANAGER_NAME, Identity

log = logging.getLogger(__name__)

SQLITE_FILE = "store.db"
# An etcd of our own is started beside this process.
START_S = 60.0
_RETRY_S = 0.5
_LOOK_S = 5.0


async def open_store(access: StoreAccess, data_dir: Path, identity_dir: Path, clock: Clock) -> Store:
    """Raises Unavailable when it cannot be reached, after a minute where the managers run it themselves."""
    if not access.shared:
        return await SqliteStore.open(data_dir / SQLITE_FILE, clock=clock)
    if not access.managed:
        return await EtcdStore.open(_given(access), clock=clock)
    identity = Identity.load(identity_dir)
    if identity is None:
        raise NotFound(f"there is no identity in {identity_dir} to come into etcd by")
    deadline = clock.monotonic() + START_S
    waiting = False
    while True:
        try:
            return await EtcdStore.open(_own(access.endpoints, access.prefix, identity), clock=clock)
        except Unavailable as error:
            if clock.monotonic() > deadline:
                raise
            if not waiting:
                log.info("waiting for etcd: %s", error)
            waiting = True
            await clock.sleep(_RETRY_S)


async def follow(store: EtcdStore, seat: Seat) -> None:
    """Keep an etcd of the managers' own within reach, for as long as the manager lives: now, with the member beside
    this manager asked first, and after a time when all hosts were off."""
    access, mirror = seat.settings.store, seat.mirror
    while True:
        members = members_of(mirror)
        own = [address for id, address in members.items() if id == seat.node_id]
        others = [address for id, address in members.items() if id != seat.node_id]
        store.use(_own((*own, *others) or access.endpoints, access.prefix, seat.identity.current()))
        if mirror.cluster is not None:
            await asyncio.to_thread(keep_copy, seat.settings, mirror.cluster)
        await seat.clock.sleep(_LOOK_S)


def _given(access: StoreAccess) -> EtcdSettings:
    return EtcdSettings(
        endpoints=access.endpoints,
        prefix=access.prefix or ETCD_PREFIX,
        ca_pem=access.ca_pem,
        certificate_pem=access.certificate_pem,
        key_pem=access.key_pem,
        user=access.user,
        password=access.password,
    )


def _own(endpoints: tuple[str, ...], prefix: str, identity: Identity) -> EtcdSettings:
    return EtcdSettings(
        endpoints=endpoints,
        prefix=prefix or ETCD_PREFIX,
        ca_pem=identity.root_ca_pem,
        certificate_pem=identity.certificate_pem,
        key_pem=identity.key_pem,
        server_name=MANAGER_NAME,
    )
