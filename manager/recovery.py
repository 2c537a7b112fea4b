"""Recovery: what is done to a manager's data while no manager runs there, by a process that does it and ends.

The agent runs it (`shoal-manager VERB …`), before it starts the manager on what came of it. `restore` makes a store of
a backup; `alone` makes this host the only manager of the cluster in its store; `migrate` copies one store into another.
The cluster keeps its id, its root of trust and its nodes. Ends with 0 when all is done, with 1 and a sentence when what
was made must not be used; it dies with its agent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from manager.access import SQLITE_FILE, open_store
from manager.audit.ledger import Ledger
from manager.ca import escrow
from manager.founding import SEAL_FILE, first_node, issued, opened
from manager.store import backup
from manager.store.base import MAX_OPS, Guard, Put, Store, Txn
from manager.store.migrate import migrate
from manager.store.records import decode, decode_value, encode, key_for, prefix_of
from shoal import process
from shoal.backup import Decoder, Header, Item, examined
from shoal.clock import Clock, SystemClock
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.files import write_atomic
from shoal.model.access import StoreAccess
from shoal.model.audit import AuditEntry
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, ManagerStatus, Node, NodeState, NodeStatus, Role
from shoal.recovery import Secrets

log = logging.getLogger(__name__)

VERBS = ("restore", "alone", "migrate")
_PR_SET_PDEATHSIG = 1


class Place(msgspec.Struct, frozen=True):
    """The manager's own directories, and how its stores are reached."""

    data_dir: Path
    identity_dir: Path
    secrets: Secrets = Secrets()


def main(argv: Sequence[str]) -> None:
    """Run one verb; exits 1 with one sentence when it cannot be done."""
    # What a killed agent began, the next one begins anew: two must not write at once (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    wanted = _parser().parse_args(argv)
    secrets = msgspec.json.decode(sys.stdin.buffer.read() or b"{}", type=Secrets)
    place, clock = Place(wanted.data_dir, wanted.identity_dir, secrets), SystemClock()
    match wanted.verb:
        case "restore":
            availability = Availability[wanted.availability.upper()]
            own = first_node(wanted.node_name, availability, clock.now_ns())
            work = restore(place, wanted.file, own=own, address=wanted.address, clock=clock)
        case "alone":
            work = become_alone(place, wanted.node_id, clock)
        case _:
            work = move(place, clock)
    process.run("shoal-manager", "info", place.data_dir, work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shoal-manager", description="Make a manager's data of what is left.")
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--data-dir", type=process.absolute, required=True, help="where the store and the seal are")
    parser.add_argument("--identity-dir", type=process.absolute, required=True, help="this node's certificate")
    parser.add_argument("--file", type=process.absolute, help="restore: the backup")
    parser.add_argument("--node-name", default="", help="restore: the hostname of this node")
    parser.add_argument("--address", default="", help="restore: by which others reach it")
    parser.add_argument(
        "--availability", choices=[each.name.lower() for each in Availability], default="active", help="restore"
    )
    parser.add_argument("--node-id", default="", help="alone: this node")
    return parser


async def restore(place: Place, file: Path, *, own: Node, address: str, clock: Clock) -> None:
    """Make the seal, the identity and the store of a backup, where there are none, with `own` as the only manager,
    whose host is reached at `address`. The identity is there before the store is needed: an etcd that the managers run
    begins with it.

    Raises InvalidArgument for a backup that is damaged or that the seal does not open, before anything is written.
    """
    header, cluster, nodes = await asyncio.to_thread(_looked_into, file)
    roots = opened(cluster, await asyncio.to_thread(escrow.opened, header, place.secrets))
    write_atomic(place.data_dir / SEAL_FILE, roots.seal.key)
    issued(roots.authority, cluster, own.meta.id, address, clock.now_ns()).save(place.identity_dir)
    async with _opened(place, place.secrets.store, clock) as store:
        await backup.begin(store, what="a restore")
        await backup.fill(store, _items(file))
        await backup.compare(store, _items(file))
        await backup.fill(store, [_item(node) for node in (own, *alone(nodes, own.meta.id, clock.now_ns()))])
        await Ledger(store, roots.seal, clock).note(_restored(own, header))
        await backup.finish(store)
    log.info("restored cluster=%s revision=%d node=%s", cluster.meta.id, header.revision, own.meta.id)


async def become_alone(place: Place, node_id: str, clock: Clock) -> None:
    """Make this node the only manager of the cluster in its store. Raises NotFound when it is none of its nodes."""
    async with _opened(place, place.secrets.store, clock) as store:
        records = (await store.read(prefix_of("node"))).records
        nodes = [node for node in map(decode, records) if isinstance(node, Node)]
        if not any(node.meta.id == node_id for node in nodes):
            raise NotFound(f"node {node_id} is not in the store of this manager", hint="restore it from a backup")
        changed = alone(nodes, node_id, clock.now_ns())
        for at in range(0, len(changed), MAX_OPS):
            part = changed[at : at + MAX_OPS]
            guards = tuple(Guard(key_for(node), node.meta.version) for node in part)
            await store.txn(Txn(guards, tuple(Put(key_for(node), encode(node)) for node in part)))
    log.info("alone node=%s changed=%d", node_id, len(changed))


async def move(place: Place, clock: Clock) -> None:
    """Copy the records from one store into another. Raises Conflict while other managers use the first one."""
    to, origin = place.secrets.store, place.secrets.source
    async with _opened(place, origin, clock) as source:
        await backup.take_over(source)
        nodes = [decode(record) for record in (await source.read(prefix_of("node"))).records]
        managers = [node for node in nodes if isinstance(node, Node) and node.spec.role is Role.MANAGER]
        if len(managers) > 1:
            raise Conflict(f"{len(managers)} managers use the store", hint="demote the others, and promote them after")
        if not to.shared:
            _set_aside(place.data_dir / SQLITE_FILE)
        async with _opened(place, to, clock) as target:
            count = await migrate(source, target)
    log.info("migrated records=%d from=%s to=%s", count, _kind(origin), _kind(to))


@contextlib.asynccontextmanager
async def _opened(place: Place, access: StoreAccess, clock: Clock) -> AsyncIterator[Store]:
    store = await open_store(access, place.data_dir, place.identity_dir, clock)
    try:
        yield store
    finally:
        await store.close()


def _set_aside(file: Path) -> None:
    """A store that was left for another: what it holds is old."""
    if file.exists():
        file.rename(file.with_name(file.name + ".moved"))


def _kind(access: StoreAccess) -> str:
    return "etcd" if access.shared else "sqlite"


def _restored(own: Node, header: Header) -> AuditEntry:
    """The line that says where the record goes back to what the backup holds: what was written after it is gone."""
    return AuditEntry(
        actor=f"root of {own.description.hostname} ({own.meta.id})",
        verb="swarm restore",
        object=f"backup of revision {header.revision}",
        decision="allowed",
        outcome="done",
    )


def alone(nodes: Iterable[Node], own_id: str, now_ns: int) -> list[Node]:
    """What changes about `nodes` when `own_id` is the only manager from now on: the others are workers, whose agents
    end the managers that they ran; and of a node that another one held a session with nobody knows how it is, until it
    calls, or is called (`manager/dispatcher/summoner.py`)."""
    return [
        _left_alone(node, now_ns)
        for node in nodes
        if node.meta.id != own_id
        and (node.spec.role is Role.MANAGER or (node.status.state is NodeState.READY and _is_held(node, own_id)))
    ]


def _left_alone(node: Node, now_ns: int) -> Node:
    manages = node.spec.role is Role.MANAGER
    message = f"{'was a manager' if manages else 'its manager is gone'}; its agent has not called yet"
    return msgspec.structs.replace(
        node,
        spec=msgspec.structs.replace(node.spec, role=Role.WORKER),
        status=NodeStatus(NodeState.UNKNOWN, message, now_ns),
        manager=ManagerStatus(),
    )


def _is_held(node: Node, own_id: str) -> bool:
    return node.status.manager_id not in ("", own_id)


def _looked_into(file: Path) -> tuple[Header, Cluster, list[Node]]:
    """The whole file is read: it is sound, or this raises."""
    header = examined(file).header
    kinds = (prefix_of("cluster"), prefix_of("node"))
    found = [decode_value(item.key, item.value, 0) for item in _items(file) if item.key.startswith(kinds)]
    clusters = [each for each in found if isinstance(each, Cluster)]
    if len(clusters) != 1:
        raise InvalidArgument(f"backup {file} holds {len(clusters)} clusters", hint="it is none of a swarm")
    return header, clusters[0], [each for each in found if isinstance(each, Node)]


def _items(file: Path) -> Iterator[Item]:
    with file.open("rb") as source:
        for batch in Decoder(source, str(file)).batches():
            yield from batch


def _item(node: Node) -> Item:
    return Item(key_for(node), encode(node))
