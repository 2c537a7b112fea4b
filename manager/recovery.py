"""Recovery: what is done to a manager's data while no manager runs there, by a process that does it and ends.

The agent runs it (`shoal-manager VERB …`), before it starts the manager on what came of it. `restore` makes a store
of a backup. In both the cluster keeps its id, its root of trust and its nodes, and has one manager: this host. Ends
with 0 when all is done, with 1 and a sentence when the data must not be used; it dies with its agent.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from manager.ca import passphrase
from manager.ca.authority import CA_KEY, Seal
from manager.founding import SEAL_FILE, first_node
from manager.store import backup
from manager.store.base import Put
from manager.store.records import decode_value, encode, key_for, prefix_of
from manager.store.sqlite import SqliteStore
from shoal import process
from shoal.backup import Decoder, Header, Item, examined
from shoal.clock import Clock, SystemClock
from shoal.errors import InvalidArgument
from shoal.files import write_atomic
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, ManagerStatus, Node, NodeState, NodeStatus, Role

log = logging.getLogger(__name__)

VERBS = ("restore",)
_PR_SET_PDEATHSIG = 1


class Restore(msgspec.Struct, frozen=True):
    """What `restore` is told. One of `passphrase` and `seal` says how the backup's secrets are opened."""

    file: Path
    data_dir: Path
    node_name: str
    availability: Availability
    passphrase: str = ""
    seal: bytes = b""


class Secrets(msgspec.Struct, frozen=True):
    """What comes in on stdin, as JSON: arguments can be read by everybody on the host (proc(5))."""

    passphrase: str = ""
    seal: bytes = b""


def main(argv: Sequence[str]) -> None:
    """Run one verb; exits 1 with one sentence when it cannot be done."""
    # What a killed agent began, the next one begins anew: two must not write at once (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    settings = parse(argv, msgspec.json.decode(sys.stdin.buffer.read() or b"{}", type=Secrets))
    process.run("shoal-manager", "info", settings.data_dir, restore(settings, SystemClock()))


def parse(argv: Sequence[str], secrets: Secrets) -> Restore:
    """Exits 2 with the usage for what is no argument of ours."""
    parser = argparse.ArgumentParser(prog="shoal-manager", description="Make a manager's data of what is left.")
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--file", type=process.absolute, required=True, help="the backup")
    parser.add_argument("--data-dir", type=process.absolute, required=True, help="where the store and the seal go")
    parser.add_argument("--node-name", required=True, help="the hostname of this node")
    parser.add_argument("--availability", choices=[each.name.lower() for each in Availability], default="active")
    wanted = parser.parse_args(argv)
    availability = Availability[wanted.availability.upper()]
    return Restore(wanted.file, wanted.data_dir, wanted.node_name, availability, secrets.passphrase, secrets.seal)


async def restore(settings: Restore, clock: Clock) -> None:
    """Make the store and the seal of a backup, in a data directory that has none.

    Raises InvalidArgument for a backup that is damaged or that the seal does not open, before anything is written.
    """
    header, cluster, nodes = await asyncio.to_thread(_looked_into, settings.file)
    seal = Seal(await asyncio.to_thread(_key_of, header, settings))
    seal.unseal(cluster.sealed_ca_key, CA_KEY)
    store = await SqliteStore.open(settings.data_dir / "store.db", clock=clock)
    try:
        await backup.begin(store, what="a restore")
        await backup.fill(store, _items(settings.file))
        await backup.compare(store, _items(settings.file))
        write_atomic(settings.data_dir / SEAL_FILE, seal.key)
        own = first_node(settings.node_name, settings.availability, clock.now_ns())
        await backup.finish(store, [_put(node) for node in (own, *alone(nodes, own))])
    finally:
        await store.close()
    log.info("restored cluster=%s revision=%d node=%s", cluster.meta.id, header.revision, own.meta.id)


def alone(nodes: Iterable[Node], own: Node) -> list[Node]:
    """What changes about `nodes` when `own` is the only manager from now on: the others are workers, whose agents end
    the managers that they ran."""
    return [
        msgspec.structs.replace(
            node,
            spec=msgspec.structs.replace(node.spec, role=Role.WORKER),
            status=NodeStatus(NodeState.UNKNOWN, "was a manager; its agent has not called yet", own.meta.created_at_ns),
            manager=ManagerStatus(),
        )
        for node in nodes
        if node.spec.role is Role.MANAGER and node.meta.id != own.meta.id
    ]


def _looked_into(file: Path) -> tuple[Header, Cluster, list[Node]]:
    """The whole file is read: it is sound, or this raises."""
    header = examined(file).header
    kinds = (prefix_of("cluster"), prefix_of("node"))
    found = [decode_value(item.key, item.value, 0) for item in _items(file) if item.key.startswith(kinds)]
    clusters = [each for each in found if isinstance(each, Cluster)]
    if len(clusters) != 1:
        raise InvalidArgument(f"backup {file} holds {len(clusters)} clusters", hint="it is none of a swarm")
    return header, clusters[0], [each for each in found if isinstance(each, Node)]


def _key_of(header: Header, settings: Restore) -> bytes:
    """The seal's key, from the backup or from what the user gave."""
    if settings.seal:
        if len(settings.seal) != Seal.KEY_BYTES:
            raise InvalidArgument(
                f"the seal has {len(settings.seal)} bytes, not {Seal.KEY_BYTES}",
                hint="give the file seal.key of a manager's data directory",
            )
        return settings.seal
    if header.seal is None:
        raise InvalidArgument(
            "the backup does not hold the cluster's seal",
            hint="give the file seal.key of one of its managers (/var/lib/shoal/manager) with --seal-key",
        )
    if not settings.passphrase:
        raise InvalidArgument(
            "the backup's seal is locked with a passphrase", hint="give it with --passphrase-file, or --seal-key"
        )
    return passphrase.opened_with(settings.passphrase, header.seal)


def _items(file: Path) -> Iterator[Item]:
    with file.open("rb") as source:
        for batch in Decoder(source, str(file)).batches():
            yield from batch


def _put(node: Node) -> Put:
    return Put(key_for(node), encode(node))
