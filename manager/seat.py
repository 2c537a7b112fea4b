"""Seat: one manager among those that share a store: its node, what it can sign and open, and what it reads and writes
by. Taken once, when it starts; `founding` makes or finds what it consists of."""

from __future__ import annotations

import msgspec

from manager.ca.authority import Seal
from manager.ca.signer import Signer
from manager.control.roster import managers_of, note_address
from manager.founding import IdentityFile, own_identity, roots_of
from manager.settings import Settings
from manager.store.base import Store
from manager.store.etcd.store import EtcdStore
from manager.store.member import Members
from manager.store.mirror import Mirror
from shoal.clock import Clock


class Seat(msgspec.Struct, frozen=True):
    """`members` are there where the managers run etcd themselves."""

    settings: Settings
    store: Store
    mirror: Mirror
    clock: Clock
    seal: Seal
    signer: Signer
    identity: IdentityFile
    node_id: str
    members: Members | None

    def managers(self) -> list[str]:
        """Where managers listen."""
        return managers_of(self.mirror)


async def take_seat(store: Store, mirror: Mirror, settings: Settings, *, seal: Seal | None, clock: Clock) -> Seat:
    """Of the cluster in `store`, which `mirror` shows, or that is founded there. `seal` is there if it had to be
    unlocked. Raises what `roots_of` and `own_identity` raise."""
    roots = await roots_of(store, mirror, settings.data_dir, settings.founder, clock, seal=seal)
    signer = Signer(mirror, roots.seal)
    identity = own_identity(mirror, signer.current, settings.identity_dir, clock)
    await note_address(store, mirror, identity.node_id, settings.advertise, clock)
    return Seat(
        settings=settings,
        store=store,
        mirror=mirror,
        clock=clock,
        seal=roots.seal,
        signer=signer,
        identity=IdentityFile(settings.identity_dir, identity),
        node_id=identity.node_id,
        members=Members(store.client, clock) if isinstance(store, EtcdStore) and settings.store.managed else None,
    )
