"""Commands on the cluster: making it, joining and leaving it, and what holds for all of it."""

import sys
from datetime import UTC, datetime
from typing import Annotated

from cli.client import Client
from cli.command import Flags, argument, command, flag, switch
from cli.lock import LOCKED, how_to_unlock
from cli.node import parse_availability
from cli.parse.number import natural
from cli.parse.secret import secret_in
from cli.parse.store import EtcdFlags, StoreFlags
from shoal.duration import duration
from shoal.errors import Conflict, InvalidArgument
from shoal.v1 import control_pb2, swarm_pb2
from shoal.v1.types_pb2 import ROLE_MANAGER, ROLE_WORKER, ClusterSpec, Role

_ROLES = {"worker": ROLE_WORKER, "manager": ROLE_MANAGER}
# A node is down after this many heartbeats that did not come.
_MISSED = 3


class ClusterFlags(Flags):
    """What holds for the whole cluster; not given, nothing changes."""

    cert_expiry: Annotated[
        int | None,
        flag(
            "--cert-expiry",
            metavar="duration",
            parse=duration,
            help="Validity period for node certificates (default 24h0m0s)",
        ),
    ] = None
    cert_grace: Annotated[
        int | None,
        flag(
            "--cert-grace",
            metavar="duration",
            parse=duration,
            help="How long after its certificate ran out a node may still come back by its old key (default 720h0m0s)",
        ),
    ] = None
    audit_retention: Annotated[
        int | None,
        flag(
            "--audit-retention",
            metavar="duration",
            parse=duration,
            help="How long lines of the audit record are kept (default 2160h0m0s)",
        ),
    ] = None
    dispatcher_heartbeat: Annotated[
        int | None,
        flag(
            "--dispatcher-heartbeat",
            metavar="duration",
            parse=duration,
            help="Dispatcher heartbeat period; a node is down after three without one (default 2s)",
        ),
    ] = None
    task_history_limit: Annotated[
        int | None,
        flag("--task-history-limit", metavar="int", parse=natural, help="Task history retention limit (default 5)"),
    ] = None

    autolock: Annotated[
        bool | None,
        switch(
            "--autolock",
            negative="--no-autolock",
            help="Enable manager autolocking: one that was stopped starts with a key",
        ),
    ] = None

    backup_schedule: Annotated[
        str | None,
        flag("--backup-schedule", help='When the leader takes a backup: "6h", or cron\'s fields in UTC; "" is never'),
    ] = None
    backup_dir: Annotated[str | None, flag("--backup-dir", help="Directory of the leader's host for its backups")] = (
        None
    )
    backup_keep: Annotated[
        int | None,
        flag("--backup-keep", metavar="int", parse=natural, help="How many backups are kept there (default 7)"),
    ] = None

    def change(self, spec: ClusterSpec) -> None:
        """Put what was given into `spec`."""
        if self.backup_schedule is not None:
            spec.backup_schedule = self.backup_schedule
        if self.backup_dir is not None:
            spec.backup_dir = self.backup_dir
        if self.backup_keep is not None:
            spec.backup_keep = self.backup_keep
        if self.autolock is not None:
            spec.autolock = self.autolock
        if self.cert_expiry is not None:
            spec.certificate_life_ns = self.cert_expiry
        if self.audit_retention is not None:
            spec.audit_retention_ns = self.audit_retention
        if self.cert_grace is not None:
            spec.certificate_grace_ns = self.cert_grace
        if self.dispatcher_heartbeat is not None:
            spec.heartbeat_ns = self.dispatcher_heartbeat
            spec.node_timeout_ns = _MISSED * self.dispatcher_heartbeat
        if self.task_history_limit is not None:
            spec.task_history = self.task_history_limit


@command(
    "[OPTIONS]",
    examples=[
        "shoal swarm init",
        "shoal swarm init --advertise-addr 10.0.0.1 --store etcd",
        "shoal swarm init --store etcd --etcd-endpoints 10.0.0.7:2379,10.0.0.8:2379",
    ],
)
async def init(
    client: Client,
    flags: ClusterFlags,
    place: StoreFlags,
    advertise_addr: Annotated[
        str, flag("--advertise-addr", help="Advertised address (format: <ip|interface>[:port])")
    ] = "",
    listen_addr: Annotated[
        str, flag("--listen-addr", help="Listen address (format: <ip|interface>[:port]) (default 0.0.0.0:2377)")
    ] = "",
    availability: Annotated[
        str, flag("--availability", help='Availability of the node ("active", "pause", "drain")')
    ] = "active",
    default_addr_pool: Annotated[
        list[str], flag("--default-addr-pool", metavar="ipNet", help="default address pool in CIDR format")
    ] = [],  # noqa: B006
    default_addr_pool_mask_length: Annotated[
        int | None,
        flag(
            "--default-addr-pool-mask-length",
            metavar="uint",
            parse=natural,
            help="default address pool subnet mask length (default 16)",
        ),
    ] = None,
    force_new_cluster: Annotated[
        bool, switch("--force-new-cluster", help="Force create a new cluster from current state")
    ] = False,
) -> None:
    """Initialize a cluster on this host"""
    if len(default_addr_pool) > 1:
        raise InvalidArgument("several --default-addr-pool are not supported yet", hint="give one")
    spec = ClusterSpec(
        address_pool=default_addr_pool[0] if default_addr_pool else "",
        address_pool_prefix=default_addr_pool_mask_length or 0,
    )
    flags.change(spec)
    if force_new_cluster and (spec != ClusterSpec() or availability != "active" or place.access() is not None):
        raise InvalidArgument(
            "with --force-new-cluster the cluster keeps its settings", hint="change them with 'shoal swarm update'"
        )
    request = swarm_pb2.InitSwarmRequest(
        advertise_address=advertise_addr,
        listen_address=listen_addr,
        availability=parse_availability(availability),
        spec=spec,
        store=place.access(),
        force_new_cluster=force_new_cluster,
    )
    answer = await client.swarm.InitSwarm(request)
    print(f"Swarm initialized: current node ({answer.node_id}) is now a manager.\n")
    if answer.locked:
        print(LOCKED)
        return
    print(how_to_join("worker", answer.worker_token, answer.manager_address))
    print("To see it again, run 'shoal swarm join-token worker'.")
    if answer.unlock_key:
        print(f"\n{how_to_unlock(answer.unlock_key)}")


@command("[OPTIONS] HOST[:PORT]", examples=["shoal swarm join --token SHTKN-1-… 10.0.0.1:2377"])
async def join(
    client: Client,
    remote: Annotated[str, argument()],
    token: Annotated[str, flag("--token", help="Token for entry into the swarm")] = "",
    advertise_addr: Annotated[str, flag("--advertise-addr", help="Advertised address (format: <ip|interface>)")] = "",
    availability: Annotated[
        str, flag("--availability", help='Availability of the node ("active", "pause", "drain")')
    ] = "active",
) -> None:
    """Join a cluster as a worker or manager"""
    if not token:
        raise Conflict("--token is missing", hint="'shoal swarm join-token worker' on a manager prints it")
    request = swarm_pb2.JoinSwarmRequest(
        token=token,
        managers=[remote],
        advertise_address=advertise_addr,
        availability=parse_availability(availability),
    )
    answer = await client.swarm.JoinSwarm(request)
    print(f"This node joined a swarm as a {'manager' if answer.role == ROLE_MANAGER else 'worker'}.")


@command("[OPTIONS] (worker|manager)", examples=["shoal swarm join-token worker", "shoal swarm join-token -q worker"])
async def join_token(
    client: Client,
    role: Annotated[str, argument()],
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display token")] = False,
    rotate: Annotated[bool, switch("--rotate", help="Rotate join token")] = False,
) -> None:
    """Print the command that joins a host, or rotate its token"""
    answer = await client.control.GetJoinToken(control_pb2.GetJoinTokenRequest(role=parse_role(role), rotate=rotate))
    if quiet:
        print(answer.token)
        return
    if rotate:
        print(f"Successfully rotated {role} join token.\n")
    print(how_to_join(role, answer.token, answer.managers[0] if answer.managers else "MANAGER:2377"))


@command("[OPTIONS]", examples=["shoal swarm migrate --to etcd --etcd-endpoints 10.0.0.7:2379,10.0.0.8:2379"])
async def migrate(
    client: Client,
    place: EtcdFlags,
    to: Annotated[str, flag("--to", help='Where the state is to be kept: "etcd" or "sqlite"')] = "",
) -> None:
    """Move the cluster's state into another store; containers go on"""
    if not to:
        raise InvalidArgument("--to is missing", hint="say --to etcd, or --to sqlite")
    request = swarm_pb2.MigrateSwarmRequest(store=place.access_of(to, asked="--to"))
    answer = await client.swarm.MigrateSwarm(request)
    print(f"The swarm's state is in {to} now.")
    if answer.locked:
        print(LOCKED)


@command("", examples=["shoal swarm renew"])
async def renew(client: Client) -> None:
    """Exchange the certificate of this host's node for a new one, now"""
    answer = await client.swarm.RenewCertificateNow(swarm_pb2.RenewCertificateNowRequest())
    until = datetime.fromtimestamp(answer.not_after_ns / 1e9, UTC)
    print(f"This node's certificate is good until {until:%Y-%m-%d %H:%M:%S} UTC.")


@command("[OPTIONS]", examples=["shoal swarm leave", "shoal swarm leave --force"])
async def leave(
    client: Client,
    force: Annotated[
        bool, switch("-f", "--force", help="Force this node to leave the swarm, ignoring warnings")
    ] = False,
) -> None:
    """Leave the cluster"""
    await client.swarm.LeaveSwarm(swarm_pb2.LeaveSwarmRequest(force=force))
    print("Node left the swarm.")


@command("[OPTIONS]", examples=["shoal swarm update --task-history-limit 2"])
async def update(
    client: Client,
    flags: ClusterFlags,
    backup_passphrase_file: Annotated[
        str | None,
        flag(
            "--backup-passphrase-file",
            help='Have all backups hold the cluster\'s key, sealed by the passphrase in this file; "" is not any more',
        ),
    ] = None,
) -> None:
    """Update the cluster's settings"""
    cluster = (await client.control.GetCluster(control_pb2.GetClusterRequest())).cluster
    flags.change(cluster.spec)
    request = control_pb2.UpdateClusterRequest(version=cluster.meta.version, spec=cluster.spec)
    if backup_passphrase_file is not None:
        request.backup_passphrase = secret_in(backup_passphrase_file, asked="--backup-passphrase-file")
    answer = await client.control.UpdateCluster(request)
    print("Swarm updated.")
    for warning in answer.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    if flags.autolock:
        key = (await client.control.GetUnlockKey(control_pb2.GetUnlockKeyRequest())).key
        print(how_to_unlock(key))


def parse_role(role: str) -> Role.ValueType:
    if role not in _ROLES:
        raise InvalidArgument(f'unknown role "{role}"', hint="use worker or manager")
    return _ROLES[role]


def how_to_join(role: str, token: str, manager: str) -> str:
    return (
        f"To add a {role} to this swarm, run the following command:\n\n    shoal swarm join --token {token} {manager}\n"
    )
