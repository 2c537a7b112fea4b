"""Room: what all calls of the API work with, and the two ways in which they write.

A name that only one record may have is claimed by a key of its own (`claim`), so that of two clients that create it
at once one is told so by the store itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from manager.api.deed import line_of, object_of
from manager.audit.ledger import Ledger
from manager.ca.authority import Authority, Seal
from manager.ca.lock import Lock
from manager.control.roster import managers_of
from manager.dispatcher.holders import Holders
from manager.doctor.examine import Doctor
from manager.store import base
from manager.store.base import Guard, Put, Store, Txn
from manager.store.mirror import Mirror
from manager.store.records import decode, encode, key_for
from shoal.access import current
from shoal.clock import Clock
from shoal.errors import Compacted, Conflict, InvalidArgument
from shoal.model.cluster import Cluster
from shoal.model.login import Login
from shoal.model.network import Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.token import Token
from shoal.model.user import User
from shoal.v1.engine_pb2 import Filter

_TRIES = 20
_RETRY_S = 0.02


class Room(msgspec.Struct, frozen=True):
    """What is written here, is written with its line in the audit record.

    `own_id` is this manager's node, `leader` says on which node the one is that leads (empty: none known).
    """

    store: Store
    mirror: Mirror
    clock: Clock
    seal: Seal
    authority: Callable[[], Authority]
    ledger: Ledger
    holders: Holders
    own_id: str
    leader: Callable[[], str]
    lock: Lock
    doctor: Doctor

    def managers(self) -> list[str]:
        """Where managers listen."""
        return managers_of(self.mirror)

    async def write(self, txn: Txn, object: str = "") -> None:
        """Write, and wait until the mirror shows it; `object` is what the audit record says instead of the records'
        names. Raises `base.Conflict` when a guard does not hold."""
        line = line_of(current(), self.mirror, self.own_id, object=object or object_of(txn, self.mirror))
        await self.mirror.reached(await self.ledger.write(txn, line))

    async def note(self, object: str) -> None:
        """Put the present call, which changes no record, into the audit record."""
        await self.ledger.note(line_of(current(), self.mirror, self.own_id, object=object))

    async def change(self, attempt: Callable[[], Txn], object: str = "") -> None:
        """Write what `attempt` makes of the mirror as it is; made anew when the loops were faster."""
        for _ in range(_TRIES):
            try:
                await self.write(attempt(), object)
            except base.Conflict as conflict:
                await self._caught_up(conflict.keys)
                await self.clock.sleep(_RETRY_S)
            else:
                return
        raise Conflict("update out of sequence: the record changes faster than this can be written", hint="try again")

    async def _caught_up(self, keys: Sequence[str]) -> None:
        """Return once the mirror shows what stands under `keys`: it may be well behind what another manager wrote."""
        for key in keys:
            found = await self.store.read(key)
            await self.mirror.reached(max((each.mod_revision for each in found.records), default=0))

    async def check_version(self, record: Cluster | Node | Service, version: int) -> None:
        """Raises Conflict when the user changed something that is not what `record` says now: its spec at
        `version` was another. The manager's own writes to the record are not in the way; 0 is any version."""
        if version in (0, record.meta.version):
            return
        gone = Conflict("update out of sequence: somebody else changed it meanwhile", hint="look again and retry")
        try:
            found = await self.store.read(key_for(record), revision=version)
        except (Compacted, InvalidArgument) as error:
            raise gone from error
        if not any(each.mod_revision == version and _spec_of(each) == record.spec for each in found.records):
            raise gone


def _spec_of(record: base.Record) -> object:
    value = decode(record)
    return getattr(value, "spec", None)


def claim(kind: str, name: str) -> str:
    """The key that the holder of a name holds."""
    return f"/claim/{kind}/{name}"


def creating(value: Service | Network) -> Txn:
    """A new record under a name that must be free."""
    key, name = key_for(value), _claim_of(value)
    return Txn((Guard(key, 0), Guard(name, 0)), (Put(key, encode(value)), Put(name, value.meta.id.encode())))


def removing(value: Service | Network, rests_on: Iterable[Guard] = ()) -> Txn:
    """The record gone, its name free again, and what hangs on it gone as well."""
    gone = [key_for(value), _claim_of(value)]
    if isinstance(value, Service):
        gone.append(key_for(Login(value.meta)))
    return Txn((Guard(key_for(value), value.meta.version), *rests_on), (), tuple(gone))


def with_login(txn: Txn, login: Login | None) -> Txn:
    """The same, and a service's credentials replaced where there are new ones."""
    if login is None:
        return txn
    return msgspec.structs.replace(txn, puts=(*txn.puts, Put(key_for(login), encode(login))))


def writing(value: Cluster | Node | Service | Token | User, rests_on: Iterable[Guard] = ()) -> Txn:
    """A changed copy of a record that was read (its `meta.version`)."""
    return Txn((Guard(key_for(value), value.meta.version), *rests_on), (Put(key_for(value), encode(value)),))


def pairs(filters: Iterable[Filter]) -> list[tuple[str, str]]:
    return [(each.key, each.value) for each in filters]


def _claim_of(value: Service | Network) -> str:
    return claim("service" if isinstance(value, Service) else "network", value.spec.name)
