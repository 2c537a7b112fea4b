"""Checks: each judges one thing about the cluster, from its records and the facts. Pure.

Every check has at least one finding, so that a report says what was looked at as well. Findings name hosts by
hostname, as people know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network

from manager.doctor.facts import Facts, Finding, Verdict
from manager.schedule import due_ns
from manager.store.view import View
from shoal import defaults
from shoal.model.network import NetworkScope
from shoal.model.node import Node, NodeState, Role
from shoal.model.task import Task, TaskState

_SLOW_S, _VERY_SLOW_S = 0.25, 2.0
_STORE_BYTES = 1 << 30
_SKEW_S, _BAD_SKEW_S = 1.0, 60.0
_LATE_BACKUP_NS = 3600 * defaults.SECOND_NS
# A task that was created a moment ago has had no turn yet.
_PATIENCE_NS = 5 * defaults.SECOND_NS
_DISK_SHARE, _DISK_BYTES = 0.1, 1 << 30
_FULL_SHARE, _FULL_BYTES = 0.03, 256 << 20
_POOL_SHARE = 0.8
_NAMED = 5


def diagnose(view: View, facts: Facts) -> list[Finding]:
    """All findings, in the order in which one looks at a cluster."""
    return [finding for check in CHECKS for finding in check(view, facts)]


def managers(view: View, facts: Facts) -> Iterator[Finding]:
    wanted = [node for node in _sorted(view) if node.spec.role is Role.MANAGER]
    silent = [node for node in wanted if node.meta.id not in view.managers]
    serving, needed = len(wanted) - len(silent), len(wanted) // 2 + 1
    if silent:
        lost = serving < needed and facts.store.kind != "sqlite"
        yield Finding(
            "managers",
            Verdict.FAILURE if lost else Verdict.WARNING,
            f"{_names(silent)} of {len(wanted)} managers cannot be reached; {needed} are needed for any change",
            "look at the agents there ('journalctl -u shoal-agent'); for one that never comes back: "
            "'shoal node demote', then 'shoal node rm'",
        )
    elif len(wanted) > 1 and len(wanted) % 2 == 0:
        yield Finding(
            "managers",
            Verdict.WARNING,
            f"there are {len(wanted)} managers: no more of them may fail than of {len(wanted) - 1}",
            "promote one more, or demote one",
        )
    else:
        yield Finding("managers", Verdict.OK, f"{serving} of {len(wanted)} serve")
    if not facts.leader_id:
        yield Finding("leader", Verdict.FAILURE, "nobody leads: nothing is decided", "see the findings on the store")
    else:
        leader = view.nodes.get(facts.leader_id)
        yield Finding("leader", Verdict.OK, _name(leader) if leader else facts.leader_id)


def store(view: View, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    found = facts.store
    if found.trouble:
        yield Finding(
            "store",
            Verdict.FAILURE,
            f"{found.kind} takes no writes: {found.trouble}",
            "what runs goes on; changes wait until most of the store's members answer and have room",
        )
        return
    if found.write_s > _SLOW_S:
        yield Finding(
            "store",
            Verdict.FAILURE if found.write_s > _VERY_SLOW_S else Verdict.WARNING,
            f"a durable write to {found.kind} takes {found.write_s:.2f} s",
            "give it a disk that syncs in milliseconds, and that it shares with nobody",
        )
    elif found.size_bytes > _STORE_BYTES:
        yield Finding(
            "store",
            Verdict.WARNING,
            f"{found.kind} has grown to {found.size_bytes >> 20} MiB",
            "lower --task-history-limit, and see which services make so many tasks",
        )
    else:
        size = f", {found.size_bytes / (1 << 20):.1f} MiB" if found.size_bytes else ""
        yield Finding("store", Verdict.OK, f"{found.kind}, a durable write takes {found.write_s * 1000:.0f} ms{size}")


def members(view: View, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    found = facts.store
    ill = [(name, trouble) for name, trouble in found.members if trouble]
    for name, trouble in ill:
        lost = 2 * (len(found.members) - len(ill)) <= len(found.members)
        yield Finding(
            "members",
            Verdict.FAILURE if lost else Verdict.WARNING,
            f"etcd's member {name} is not well: {trouble}",
            "see etcd's log there; one that never comes back is to be removed and another added",
        )
    for alarm in found.alarms:
        yield Finding("members", Verdict.FAILURE, f"etcd raises an alarm: {alarm}", "give it room, then defragment it")
    if not ill and not found.alarms:
        count = (
            f"all {len(found.members)} of etcd are well" if found.members else "none: the store is this manager's own"
        )
        yield Finding("members", Verdict.OK, count)


def nodes(view: View, facts: Facts) -> Iterator[Finding]:
    gone = [node for node in _sorted(view) if node.status.state is not NodeState.READY]
    mute = [node for node in _sorted(view) if node not in gone and facts.hosts[node.meta.id].error]
    for node in gone:
        yield Finding(
            "nodes",
            Verdict.WARNING,
            f"{_name(node)} is {node.status.state.name.lower()}: {node.status.message or 'its agent has not called'}",
            "start its agent, or 'shoal node rm' it; its tasks run elsewhere meanwhile",
        )
    for node in mute:
        yield Finding(
            "nodes",
            Verdict.WARNING,
            f"{_name(node)} is in a session but cannot be called: {facts.hosts[node.meta.id].error}",
            f"let managers reach port 2376 at {node.description.address}: exec, logs and images need it",
        )
    if not gone and not mute:
        yield Finding("nodes", Verdict.OK, f"{len(view.nodes)} are up and answer")


def clocks(view: View, facts: Facts) -> Iterator[Finding]:
    wrong = [
        (node, found.ahead_s)
        for node in _sorted(view)
        if (found := facts.hosts.get(node.meta.id)) and not found.error
        if abs(found.ahead_s) - found.doubt_s > _SKEW_S
    ]
    for node, ahead_s in wrong:
        yield Finding(
            "clocks",
            Verdict.FAILURE if abs(ahead_s) > _BAD_SKEW_S else Verdict.WARNING,
            f"the clock of {_name(node)} is {abs(ahead_s):.1f} s {'ahead' if ahead_s > 0 else 'behind'}",
            "let chrony or systemd-timesyncd run there: certificates and the times of tasks go by it",
        )
    if not wrong:
        yield Finding("clocks", Verdict.OK, f"all within {_SKEW_S:.0f} s of this manager's")


def certificates(view: View, facts: Facts) -> Iterator[Finding]:
    life_ns = view.cluster.spec.certificate_life_ns if view.cluster else defaults.CLUSTER.certificate_life_ns
    ending = [
        (node, left_ns)
        for node in _sorted(view)
        if (until_ns := node.description.certificate.not_after_ns)
        if (left_ns := until_ns - facts.now_ns) < life_ns // 6
    ]
    for node, left_ns in ending:
        when = f"runs out in {left_ns // 60_000_000_000} min" if left_ns > 0 else "has run out"
        yield Finding(
            "certificates",
            Verdict.WARNING if left_ns > 0 else Verdict.FAILURE,
            f"that of {_name(node)} {when}, and was not renewed",
            "see why in its agent's log; with a manager in reach and a right clock it renews by itself",
        )
    if not ending:
        yield Finding("certificates", Verdict.OK, "all are renewed in time")


def tasks(view: View, facts: Facts) -> Iterator[Finding]:
    waiting: dict[tuple[str, str], int] = {}
    for task in view.tasks_unassigned():
        if task.desired <= TaskState.RUNNING and task.since_ns(facts.now_ns) < facts.now_ns - _PATIENCE_NS:
            place = (_service(view, task), task.status.message or task.status.error or "nobody has looked at it yet")
            waiting[place] = waiting.get(place, 0) + 1
    for (service, why), count in sorted(waiting.items()):
        yield Finding(
            "tasks",
            Verdict.WARNING,
            f"{count} of service {service} cannot be placed: {why}",
            "change its constraints or reservations, or add or activate nodes",
        )
    if not waiting:
        yield Finding("tasks", Verdict.OK, "every task has a node")


def disks(view: View, facts: Facts) -> Iterator[Finding]:
    low = []
    for node in _sorted(view):
        found = facts.hosts.get(node.meta.id)
        if found is None or not found.disk_bytes:
            continue
        free, share = found.disk_free_bytes, found.disk_free_bytes / found.disk_bytes
        if share < _FULL_SHARE or free < _FULL_BYTES:
            low.append((node, Verdict.FAILURE, found))
        elif (share < _DISK_SHARE and free < 10 * _DISK_BYTES) or free < _DISK_BYTES:
            low.append((node, Verdict.WARNING, found))
    for node, verdict, found in low:
        what = "the store, images and logs" if node.spec.role is Role.MANAGER else "images and logs"
        yield Finding(
            "disks",
            verdict,
            f"{found.disk_free_bytes >> 20} of {found.disk_bytes >> 20} MiB are free on {_name(node)} for {what}",
            "'shoal container prune' and 'shoal rmi' there, or a larger disk",
        )
    if not low:
        yield Finding("disks", Verdict.OK, "all have room")


def backups(view: View, facts: Facts) -> Iterator[Finding]:
    cluster = view.cluster
    if cluster is None or not cluster.spec.backup_schedule:
        yield Finding(
            "backups",
            Verdict.NOTE,
            "none are taken by schedule",
            "'shoal swarm update --backup-schedule 6h --backup-dir DIR --backup-passphrase-file FILE'",
        )
    elif cluster.backup.error:
        since = _ago(cluster.backup.taken_at_ns, facts.now_ns) if cluster.backup.taken_at_ns else "never"
        yield Finding(
            "backups",
            Verdict.FAILURE,
            f"the last try failed: {cluster.backup.error} (the last good one: {since})",
            "mend that; the next try comes within 10 min",
        )
    elif due_ns(cluster.spec.backup_schedule, cluster.backup) + _LATE_BACKUP_NS < facts.now_ns:
        yield Finding("backups", Verdict.WARNING, "the one that is due is late", "see the log of the leader's manager")
    else:
        holder = view.nodes.get(cluster.backup.node_id)
        where = f"{_name(holder)}:{cluster.backup.path}" if holder else cluster.backup.path
        yield Finding("backups", Verdict.OK, f"{_ago(cluster.backup.taken_at_ns, facts.now_ns)}, {where}")
        if not cluster.backups_open:
            yield Finding(
                "backups",
                Verdict.NOTE,
                "they do not hold the cluster's key",
                "'shoal swarm update --backup-passphrase-file FILE', or keep a copy of a manager's seal.key",
            )


def versions(view: View, facts: Facts) -> Iterator[Finding]:
    others = [
        node
        for node in _sorted(view)
        if node.description.agent_version and node.description.agent_version != facts.version
    ]
    if others:
        known = sorted({node.description.agent_version for node in others})
        yield Finding(
            "versions",
            Verdict.WARNING,
            f"this manager is {facts.version}, the agent of {_names(others)} {', '.join(known)}",
            "upgrade them: containers go on meanwhile",
        )
    else:
        yield Finding("versions", Verdict.OK, f"all are {facts.version}")


def twins(view: View, facts: Facts) -> Iterator[Finding]:
    names: dict[str, list[Node]] = {}
    machines: dict[str, list[Node]] = {}
    for node in _sorted(view):
        names.setdefault(node.description.hostname, []).append(node)
        if (found := facts.hosts.get(node.meta.id)) and found.machine_id:
            machines.setdefault(found.machine_id, []).append(node)
    same_name = [(name, each) for name, each in names.items() if len(each) > 1 and name]
    same_machine = [each for each in machines.values() if len(each) > 1]
    for name, each in same_name:
        ids = ", ".join(node.meta.id for node in each)
        yield Finding(
            "twins",
            Verdict.WARNING,
            f"{len(each)} nodes are called {name}: {ids}",
            "'shoal node rm' what a host was before, or rename one; until then use ids",
        )
    for each in same_machine:
        yield Finding(
            "twins",
            Verdict.WARNING,
            f"{_names(each)} have the same machine id: they were cloned",
            "'systemd-machine-id-setup' on one of them, after removing /etc/machine-id, and restart it",
        )
    if not same_name and not same_machine:
        yield Finding("twins", Verdict.OK, "no two hosts have the same name or machine id")


def addresses(view: View, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    short = []
    if (cluster := view.cluster) is not None and cluster.spec.address_pool:
        pool = IPv4Network(cluster.spec.address_pool)
        taken = sum(
            IPv4Network(network.subnet).num_addresses
            for network in view.networks.values()
            if network.scope is NetworkScope.SWARM and network.subnet and IPv4Network(network.subnet).subnet_of(pool)
        )
        if taken >= _POOL_SHARE * pool.num_addresses:
            share = 100 * taken // pool.num_addresses
            short.append(f"{share} % of the pool {pool} is given to networks")
    for network in sorted(view.networks.values(), key=lambda each: each.spec.name):
        if network.subnet and network.block_prefix:
            # The first block is for the addresses of services.
            blocks = (1 << (network.block_prefix - IPv4Network(network.subnet).prefixlen)) - 1
            leased = len(view.leases_of_network(network.meta.id))
            if leased >= _POOL_SHARE * blocks:
                short.append(f"{leased} of the {blocks} blocks of network {network.spec.name} are with nodes")
    for what in short:
        yield Finding("addresses", Verdict.WARNING, what, "make a network with a larger --subnet, and move to it")
    if not short:
        yield Finding("addresses", Verdict.OK, "networks have room")


CHECKS: tuple[Callable[[View, Facts], Iterable[Finding]], ...] = (
    managers,
    store,
    members,
    nodes,
    clocks,
    certificates,
    tasks,
    disks,
    backups,
    versions,
    twins,
    addresses,
)


def _sorted(view: View) -> list[Node]:
    return sorted(view.nodes.values(), key=lambda node: (node.description.hostname, node.meta.id))


def _name(node: Node) -> str:
    return node.description.hostname or node.meta.id


def _names(found: list[Node]) -> str:
    """All of few, or some of many."""
    named = ", ".join(_name(node) for node in found[:_NAMED])
    return named if len(found) <= _NAMED else f"{named} and {len(found) - _NAMED} more"


def _service(view: View, task: Task) -> str:
    service = view.services.get(task.service_id)
    return service.spec.name if service else task.service_id


def _ago(at_ns: int, now_ns: int) -> str:
    minutes = max(0, now_ns - at_ns) // 60_000_000_000
    if minutes < 120:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // 1440} days ago"
