"""Rule: for each call of a manager, the least role of a user that may make it, and what it is called in sentences.

This is the one place that says so; `permission` heeds it. A test holds it against the services' descriptors: a call
without a row cannot be added. Services in `FOR_NODES` and `FOR_MANAGERS` are no user's at all, whatever their role.

Viewers look. Deployers change what runs in the cluster, with its networks and images, and read logs, where secrets may
stand. Operators work on nodes, in containers and on volumes, and let hosts in: on every node they are as good as root.
Admins decide about users, the cluster's settings and its keys.
"""

from __future__ import annotations

import msgspec

from shoal.model.user import UserRole


class Rule(msgspec.Struct, frozen=True):
    """`verb` is what the call does, as its command says it. One that `changes` something is for the audit record, and
    so is one that gives out what is confidential."""

    role: UserRole
    verb: str
    changes: bool = False


FOR_NODES = frozenset({"shoal.v1.DispatcherService", "shoal.v1.CertificateService"})
FOR_MANAGERS = frozenset({"shoal.v1.ManagerService"})


def _looks(**verbs: str) -> dict[str, Rule]:
    return {call: Rule(UserRole.VIEWER, verb) for call, verb in verbs.items()}


def _reads(role: UserRole, **verbs: str) -> dict[str, Rule]:
    return {call: Rule(role, verb) for call, verb in verbs.items()}


def _changes(role: UserRole, **verbs: str) -> dict[str, Rule]:
    return {call: Rule(role, verb, changes=True) for call, verb in verbs.items()}


_CONTROL = {
    **_looks(
        GetCluster="swarm inspect",
        ListNodes="node ls",
        GetNode="node inspect",
        GetService="service inspect",
        ListServices="service ls",
        WatchService="service inspect",
        ListTasks="service ps",
        GetTask="task inspect",
        GetNetwork="network inspect",
        ListNetworks="network ls",
    ),
    **_changes(
        UserRole.VIEWER,
        RenewUser="user renew",
    ),
    **_changes(
        UserRole.DEPLOYER,
        CreateService="service create",
        UpdateService="service update",
        RemoveService="service rm",
        CreateNetwork="network create",
        RemoveNetwork="network rm",
    ),
    **_reads(UserRole.OPERATOR, ListJoinTokens="token ls"),
    **_changes(
        UserRole.OPERATOR,
        GetJoinToken="join-token",
        CreateJoinToken="token create",
        RevokeJoinToken="token rm",
        UpdateNode="node update",
        RemoveNode="node rm",
    ),
    **_reads(
        UserRole.ADMIN,
        GetUser="user inspect",
        ListUsers="user ls",
        ReadAudit="swarm audit",
        ExamineCluster="swarm doctor",
        VerifyAudit="swarm audit verify",
    ),
    **_changes(
        UserRole.ADMIN,
        UpdateCluster="swarm update",
        RotateRoot="swarm ca",
        BackupCluster="swarm backup",
        GetUnlockKey="swarm unlock-key",
        CreateUser="user create",
        UpdateUser="user update",
        RevokeUser="user revoke",
        RemoveUser="user rm",
    ),
}
_CONTAINER = {
    **_looks(
        GetContainer="container inspect",
        ListContainers="container ls",
        WaitContainer="container wait",
        ListProcesses="container top",
        WatchStats="container stats",
        DiffContainer="container diff",
    ),
    **_reads(UserRole.DEPLOYER, ReadLogs="container logs"),
    **_reads(UserRole.OPERATOR, StatPath="container cp"),
    **_changes(
        UserRole.OPERATOR,
        CreateContainer="container create",
        StartContainer="container start",
        StopContainer="container stop",
        RestartContainer="container restart",
        KillContainer="container kill",
        PauseContainer="container pause",
        UnpauseContainer="container unpause",
        RenameContainer="container rename",
        UpdateContainer="container update",
        RemoveContainer="container rm",
        PruneContainers="container prune",
        CommitContainer="container commit",
        ExportContainer="container export",
        ReadArchive="container cp",
        WriteArchive="container cp",
        AttachContainer="container attach",
        ExecContainer="container exec",
        ConnectContainer="network connect",
        DisconnectContainer="network disconnect",
    ),
}
_IMAGE = {
    **_looks(GetImage="image inspect", ListImages="image ls", GetImageHistory="image history"),
    # What makes the node speak to a registry.
    **_reads(
        UserRole.DEPLOYER,
        ResolveImage="image pull",
        GetManifest="manifest inspect",
        CheckLogin="login",
        SearchImages="search",
    ),
    **_changes(
        UserRole.DEPLOYER,
        PullImage="image pull",
        PushImage="image push",
        ImportImage="image import",
        LoadImages="image load",
        TagImage="image tag",
        PutIndex="manifest push",
    ),
    **_changes(UserRole.OPERATOR, RemoveImage="image rm", PruneImages="image prune", SaveImages="image save"),
}
# A command of a build is as free as a container's, and may be on the host's network.
_BUILD = _changes(UserRole.OPERATOR, BuildImage="image build", PruneBuilds="builder prune")
_NETWORK = {
    **_looks(ListLocalNetworks="network ls"),
    **_changes(
        UserRole.OPERATOR,
        CreateLocalNetwork="network create",
        RemoveLocalNetwork="network rm",
        PruneLocalNetworks="network prune",
    ),
}
_VOLUME = {
    **_looks(GetVolume="volume inspect", ListVolumes="volume ls"),
    **_changes(UserRole.OPERATOR, CreateVolume="volume create", RemoveVolume="volume rm", PruneVolumes="volume prune"),
}
_SYSTEM = _looks(GetInfo="system info", WatchEvents="system events", GetDiskUsage="system df")

RULES: dict[str, Rule] = {
    f"/shoal.v1.{service}Service/{call}": rule
    for service, rows in {
        "Control": _CONTROL,
        "Container": _CONTAINER,
        "Image": _IMAGE,
        "Build": _BUILD,
        "Network": _NETWORK,
        "Volume": _VOLUME,
        "System": _SYSTEM,
    }.items()
    for call, rule in rows.items()
}
