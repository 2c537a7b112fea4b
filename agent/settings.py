"""Settings: how the manager process of this host is started, each time, and the member of etcd beside it; remembered
for as long as this host is a manager. `agent/manager.py` and `agent/etcd.py` are the processes."""

from __future__ import annotations

import socket

import msgspec

from agent.address import advertised
from agent.etcd import MemberSettings
from shoal.errors import InvalidArgument
from shoal.model.access import StoreAccess
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability
from shoal.settings import ETCD_CLIENT_PORT, MANAGER_PORT, host_port

_NO_SPEC = ClusterSpec()
_SQLITE = StoreAccess()


class ManagerSettings(msgspec.Struct, frozen=True):
    """`spec` has only what differs from the defaults."""

    listen: str
    advertise: str
    node_name: str
    availability: Availability = Availability.ACTIVE
    spec: ClusterSpec = _NO_SPEC
    # Whether it makes a cluster where there is none; not where one was brought back, or is joined.
    founds: bool = True
    store: StoreAccess = _SQLITE
    # Where its host runs a member of the managers' own etcd: who was in it when this one came, as etcd wants it.
    initial_cluster: str = ""

    def argv(self) -> list[str]:
        """The arguments that depend on these settings, but for the store's; `--init` on an initialised directory just
        serves."""
        words = ["--listen", self.listen, "--advertise", self.advertise]
        if not self.founds:
            return words
        words += ["--init", "--node-name", self.node_name]
        differing = {
            field: value for field, value in msgspec.structs.asdict(self.spec).items() if value != _DEFAULTS[field]
        }
        if differing:
            words += ["--spec-json", msgspec.json.encode(differing).decode()]
        if self.availability is not Availability.ACTIVE:
            words += ["--availability", self.availability.name.lower()]
        return words


_DEFAULTS = msgspec.structs.asdict(_NO_SPEC)


def wanted_settings(
    advertise: str,
    listen: str,
    *,
    default: str,
    availability: Availability = Availability.ACTIVE,
    spec: ClusterSpec = _NO_SPEC,
    store: StoreAccess = _SQLITE,
) -> ManagerSettings:
    """Those of a cluster's first manager, by what a user said; `default` is the agent's --address.

    Raises InvalidArgument for an address that is none.
    """
    host, port = _split(advertise, "--advertise-addr") if advertise else ("", 0)
    listen_host, listen_port = _split(listen or "0.0.0.0", "--listen-addr")
    address = advertised(host, default=default)
    if store.managed:
        store = msgspec.structs.replace(store, endpoints=(f"{address}:{ETCD_CLIENT_PORT}",))
    return ManagerSettings(
        listen=f"{listen_host}:{listen_port}",
        # Without a port of its own, the advertised one is the one that is listened on.
        advertise=f"{address}:{port or listen_port}",
        node_name=socket.gethostname(),
        availability=availability,
        spec=spec,
        store=store,
    )


def _split(text: str, flag: str) -> tuple[str, int]:
    try:
        return host_port(text, MANAGER_PORT)
    except ValueError as error:
        raise InvalidArgument(f"invalid {flag} {text!r}: {error}", hint="give ADDR or ADDR:PORT") from error


def member_settings(settings: ManagerSettings) -> MemberSettings:
    """How the member of etcd beside the manager is started. Members are named after where they are."""
    address, _ = host_port(settings.advertise, MANAGER_PORT)
    peers = [each.partition("=") for each in filter(None, settings.initial_cluster.split(","))]
    return MemberSettings(
        name=address,
        address=address,
        # Enough of a name: members of another cluster do not get through TLS.
        cluster_id="shoal",
        peers=tuple((name, url) for name, _, url in peers),
        joins=bool(peers),
    )
