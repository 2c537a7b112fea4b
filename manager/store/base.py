"""The store's port: a revisioned key/value space with guarded transactions, leases and a gap-free watch.

Keys are text paths ("/task/ID"), values bytes. A transaction that changes something raises the store's revision, and
those that are done at once may share one; a record remembers the revision that created it and the one that last wrote
it. `sqlite` implements this port for one manager, `etcd` for several; tests/contract/store is what any implementation
must pass. What the values mean is `records`' business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from shoal import errors

# etcd takes 128 compares, 128 operations and 1.5 MiB a transaction; ours stay below for every implementation.
MAX_OPS = 100
MAX_GUARDS = 128
MAX_BYTES = 1_000_000


class Guard(msgspec.Struct, frozen=True, gc=False):
    """Holds while `key` was last written at `revision`; 0: while it does not exist."""

    key: str
    revision: int


class Put(msgspec.Struct, frozen=True, gc=False):
    """Write `value`; with a `lease` the key goes when the lease does."""

    key: str
    value: bytes
    lease: int = 0


class Txn(msgspec.Struct, frozen=True, gc=False):
    """All of it, or nothing: `puts` and `deletes` happen if every guard holds. A key occurs in one operation only;
    deleting a key that is not there is no change."""

    guards: tuple[Guard, ...] = ()
    puts: tuple[Put, ...] = ()
    deletes: tuple[str, ...] = ()


class Record(msgspec.Struct, frozen=True, gc=False):
    key: str
    value: bytes
    mod_revision: int
    create_revision: int


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """What was there at `revision`, ordered by key."""

    revision: int
    records: tuple[Record, ...]


class Change(msgspec.Struct, frozen=True, gc=False):
    """`value` is None for a deletion."""

    key: str
    value: bytes | None
    mod_revision: int


class Commit(msgspec.Struct, frozen=True, gc=False):
    """All changes of one revision (under the prefix that was watched)."""

    revision: int
    changes: tuple[Change, ...]


class Conflict(errors.Conflict):
    """A transaction's guards did not hold, and nothing of it happened. `keys` are those that were in the way."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(f"changed by somebody else meanwhile: {', '.join(keys)}", hint="read again and retry")
        self.keys = keys


class Store(Protocol):
    """What every implementation promises. Methods raise Unavailable when the store cannot be reached or is
    broken, Exhausted when its disk is full; a write that was cancelled, or that raised Unavailable, may have
    happened. A watch goes on by itself over what ends again. `kind` is what settings and backups call the
    implementation."""

    kind: str

    @property
    def trouble(self) -> str:
        """Why writes cannot be done now, as far as is known without asking; empty while all is well."""

    @property
    def silent_s(self) -> float:
        """How long ago the store was last heard; what a mirror shows is at most this much older than the store."""

    async def txn(self, txn: Txn) -> int:
        """Do it and return the revision it is durable at; without changes, one that a mirror reaches and at which the
        guards held.

        Raises Conflict; InvalidArgument above MAX_OPS operations, MAX_GUARDS guards or MAX_BYTES of keys and
        values, or when a key is changed twice; NotFound for a lease that is gone.
        """

    async def txn_many(self, txns: Sequence[Txn]) -> list[int | Conflict]:
        """Do many independent transactions as cheaply as one: each has its own outcome, in the order given; they may
        share a revision. One that touches what an earlier one changes comes after it. Raises as `txn` for what is
        malformed, before anything happens."""

    async def read(self, prefix: str, *, revision: int = 0) -> Snapshot:
        """All records whose key begins with `prefix`, as of `revision` (0: now).

        Raises Compacted for a revision that is not kept any more, InvalidArgument for one that is to come.
        """

    def scan(self, prefix: str, *, limit: int = 200) -> AsyncIterator[Snapshot]:
        """What `read` returns of now, in parts of at most `limit` records that share one revision, for who must not
        hold all of it in memory. There is one part at least. Raises Compacted when a store cannot keep that revision
        until the end; close it (`contextlib.aclosing`) when not all of it is taken."""

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Commit]:
        """Every commit under `prefix` with a revision above `after`, in order, none missing, for ever.

        Raises Compacted when the history that is needed is gone: read again, and watch from there.
        """

    async def compact(self, revision: int) -> None:
        """Forget the history up to `revision`. Records stay."""

    async def grant(self, ttl_s: float) -> int:
        """A new lease that ends `ttl_s` after its last `keep_alive`."""

    async def keep_alive(self, lease: int) -> None:
        """Begin the lease's time anew. Raises NotFound once it has ended."""

    async def revoke(self, lease: int) -> None:
        """End the lease now and delete its keys. A lease that is gone already is fine."""

    async def close(self) -> None: ...


def check(txn: Txn) -> None:
    """Raise InvalidArgument for what no implementation takes."""
    ops = len(txn.puts) + len(txn.deletes)
    if ops > MAX_OPS or len(txn.guards) > MAX_GUARDS:
        raise errors.InvalidArgument(
            f"transaction of {ops} operations and {len(txn.guards)} guards is above the store's {MAX_OPS} "
            f"and {MAX_GUARDS}",
            hint="split it",
        )
    size = sum(len(put.key) + len(put.value) for put in txn.puts)
    if size > MAX_BYTES:
        raise errors.InvalidArgument(f"transaction of {size} bytes is above the store's {MAX_BYTES}", hint="split it")
    keys = [put.key for put in txn.puts] + list(txn.deletes)
    if len(set(keys)) != len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise errors.InvalidArgument(f"a transaction changes {', '.join(twice)} twice")
