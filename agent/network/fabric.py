"""Fabric: the networks of this host as they are in the kernel and on disk. What `Networks` has decided happens
here. Blocking; everything but `segments`, `networks` and `find` is for one thread, that of `open`.

What is there already is taken over: devices by their names, containers by their records, overlays and services by
the wish that the cluster said last. So an agent that comes back changes no packet's way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agent.kernel import netlink as raw
from agent.kernel import netns
from agent.kernel.nft import Nft
from agent.network import balance, bridge, overlay, sysctl
from agent.network.balance import Balance
from agent.network.bridge import Bridges
from agent.network.conntrack import Conntrack
from agent.network.firewall import Published
from agent.network.netlink import Kernel
from agent.network.record import Record, Records, Wish
from agent.network.sandbox import Sandbox, Sandboxes
from agent.network.segment import Segment
from agent.network.table import Table
from shoal.errors import Conflict, InvalidArgument, ShoalError
from shoal.model.assignment import NetworkAssignment
from shoal.model.network import Network, NetworkSpec, Port, PortProtocol

log = logging.getLogger(__name__)


class Fabric:
    """`wish` is what the cluster said last, carried out or not."""

    def __init__(self, *, data_dir: Path, folder: Path, chance: Callable[[], float], now_ns: Callable[[], int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._records = Records(folder)
        self._overlays: tuple[Segment, ...] = ()
        self._laid: tuple[NetworkAssignment, ...] | None = None
        self.wish = self._records.load_wish()
        self._backends = balance.addresses(self.wish.endpoints)
        with contextlib.ExitStack() as undo:
            self._kernel = Kernel(raw.Socket())
            undo.callback(self._kernel.close)
            self._conntrack = Conntrack()
            undo.callback(self._conntrack.close)
            self._table = Table(Nft())
            undo.callback(self._table.close)
            self._sandboxes = Sandboxes(self._kernel, chance)
            self._bridges = Bridges(data_dir / "networks", now_ns)
            undo.pop_all()

    def take_over(self) -> list[Record]:
        """Make what must be, from what is on disk; the records of containers that were connected."""
        sysctl.forward_packets()
        self._bridges.load(self._kernel)
        self._bridges.ensure(self._kernel)
        records = self._records.load()
        try:
            self._lay(self.wish)
        except InvalidArgument as error:
            log.error("a network of the cluster cannot be: %s", error)
        published = [each for record in records for each in _published(record)]
        self._table.replace(self.segments, published, self._services())
        self._table.mend()
        return records

    def close(self) -> None:
        """Let go of what only this process holds."""
        self._sandboxes.close()
        self._table.close()
        self._conntrack.close()
        self._kernel.close()

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (*self._bridges.segments(), *self._overlays)

    @property
    def networks(self) -> list[Network]:
        """Those of this host, then the cluster's that this host takes part in."""
        return [*self._bridges.shown(), *(each.network for each in self.wish.networks)]

    def find(self, network_id: str) -> Network | None:
        """One of them."""
        own = self._bridges.networks.get(network_id)
        return own or next((each.network for each in self.wish.networks if each.network.meta.id == network_id), None)

    # -- containers -------------------------------------------------------------------------------

    def plug_in(
        self, record: Record, segments: tuple[Segment, ...], namespace: netns.Namespace | None = None
    ) -> Sandbox:
        """Record, namespace, addresses, ports, in this order. On failure only the record remains."""
        self._records.save(record)
        sandbox = self._sandboxes.make(segments, namespace)
        try:
            sandbox.configure(
                [IPv4Address(attached.address) for attached in record.attached],
                [attached.mac for attached in record.attached],
            )
            self._table.publish(_published(record))
            self._conntrack.forget((), _udp(record.ports))
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def extend(self, record: Record, path: str, segment: Segment) -> None:
        """The last network of `record` is new: its interface in the namespace at `path`."""
        self._records.save(record)
        attached = record.attached[-1]
        self._sandboxes.extend(path, segment, IPv4Address(attached.address), attached.mac)

    def shorten(self, before: Record, after: Record, path: str, segments: Sequence[Segment]) -> None:
        """`after` has one network less than `before`; `segments` are of those that stay. Ports follow."""
        gone = next(each for each in before.attached if each not in after.attached)
        rest = [(segment, IPv4Address(own.address)) for segment, own in zip(segments, after.attached, strict=True)]
        self._table.unpublish(_published(before))
        self._records.save(after)
        self._sandboxes.shorten(path, IPv4Address(gone.address), rest)
        self._table.publish(_published(after))

    def note(self, record: Record) -> None:
        """Write down what changed of a container that is plugged in."""
        self._records.save(record)

    def unplug(self, record: Record) -> None:
        """No port leads to the container any more, and it is forgotten. Idempotent."""
        self._table.unpublish(_published(record))
        if _udp(record.ports):
            self._conntrack.forget([IPv4Address(record.reached)])
        self._records.remove(record.container_id)

    def lone(self, namespace: netns.Namespace | None = None) -> Sandbox:
        """A namespace with nothing but lo."""
        sandbox = self._sandboxes.make((), namespace)
        try:
            sandbox.configure(())
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def forget(self, record: Record) -> None:
        """As `unplug`, of a container that published nothing. In any thread: it waits for nobody."""
        self._records.remove(record.container_id)

    @property
    def short(self) -> bool:
        """Whether `refill` has something to do."""
        return self._sandboxes.short

    def refill(self) -> None:
        """Make namespaces on the default network ready for the next starts."""
        default = tuple(segment for segment in self._bridges.segments() if segment.name == bridge.DEFAULT)
        self._sandboxes.refill(default)

    # -- the cluster ------------------------------------------------------------------------------

    def carry_out(self, wish: Wish) -> None:
        """All that the cluster wants. Raises InvalidArgument for what cannot be: a network without the others, a
        service's address that is none before anything is done."""
        backends = balance.addresses(wish.endpoints)
        self._records.save_wish(wish)
        before, self.wish = self.wish, wish
        wrong: InvalidArgument | None = None
        try:
            if wish.networks != self._laid:
                self._lay(wish)
        except InvalidArgument as error:
            wrong = error
        self._serve()
        self._conntrack.forget(self._backends - backends, _mesh(wish) - _mesh(before))
        self._backends = backends
        if wrong:
            raise wrong

    def _lay(self, wish: Wish) -> None:
        """The devices and routes of the overlays. What cannot be is left out, and the first such raised."""
        self._laid = None
        mtu = overlay.underlay_mtu(wish.networks, bridge.outward_mtu(self._kernel))
        sound: list[NetworkAssignment] = []
        segments: list[Segment] = []
        wrong: InvalidArgument | None = None
        for assignment in wish.networks:
            try:
                segment = overlay.segment_of(assignment, mtu)
            except InvalidArgument as error:
                wrong = wrong or error
                continue
            known, unknown = overlay.reachable_peers(assignment)
            sound.append(known)
            segments.append(segment)
            wrong = wrong or unknown
        overlay.converge(self._kernel, sound, segments)
        self._overlays = tuple(segments)
        if wrong:
            raise wrong
        self._laid = wish.networks

    def _services(self) -> Balance:
        ingress = [each.network.meta.id for each in self.wish.networks if each.network.spec.ingress]
        return balance.balance_of(self.wish.endpoints, self._overlays, ingress)

    # -- networks of this host --------------------------------------------------------------------

    def create(self, spec: NetworkSpec) -> Network:
        """A new bridge network, there when this returns, or not at all."""
        if any(each.network.spec.name == spec.name for each in self.wish.networks):
            raise Conflict(f"network with name {spec.name} already exists")
        network = self._bridges.create(spec, self._kernel, self._cluster_subnets())
        try:
            self._bridges.ensure(self._kernel)
            self._serve()
        except (OSError, ShoalError):
            self._bridges.remove(network, self._kernel)
            raise
        return network

    def remove(self, network: Network) -> None:
        """Raises PermissionDenied for a predefined one, Conflict for one of the cluster."""
        if network.meta.id not in self._bridges.networks:
            raise Conflict(f"network {network.spec.name} is the cluster's", hint="remove it through a manager")
        self._bridges.remove(network, self._kernel)
        self._serve()

    def mend(self) -> None:
        """Undo what other programs of this host did to its firewall."""
        self._table.mend()

    def _serve(self) -> None:
        self._table.serve(self.segments, self._services())

    def _cluster_subnets(self) -> Iterable[IPv4Network]:
        return [segment.subnet for segment in self._overlays]


def _published(record: Record) -> list[Published]:
    return [Published(port, record.reached) for port in record.ports if record.reached]


def _mesh(wish: Wish) -> set[int]:
    """The UDP ports that every host publishes."""
    return {number for protocol, number in balance.mesh_ports(wish.endpoints) if protocol is PortProtocol.UDP}


def _udp(ports: Iterable[Port]) -> list[int]:
    return [port.published for port in ports if port.protocol is PortProtocol.UDP]
