"""Cluster: the one record that all members share. Its defaults are in `shoal.defaults`."""

from __future__ import annotations

from shoal.model.base import Meta, Value


class ClusterSpec(Value, frozen=True):
    """`node_timeout_ns` without a sign of life makes a node DOWN. Overlays without a subnet take one of
    `address_pool_prefix` bits from `address_pool`. A node may come back by its old key until `certificate_grace_ns`
    after its certificate ran out. Lines of the audit record are kept for `audit_retention_ns`. With `autolock`, a
    manager that starts again serves once it was unlocked. The leader keeps `backup_keep` backups in `backup_dir` on its
    host, by `backup_schedule` (`manager/schedule.py`)."""

    name: str = ""
    task_history: int = 0
    heartbeat_ns: int = 0
    node_timeout_ns: int = 0
    certificate_life_ns: int = 0
    address_pool: str = ""
    address_pool_prefix: int = 0
    certificate_grace_ns: int = 0
    audit_retention_ns: int = 0
    autolock: bool = False
    backup_schedule: str = ""
    backup_dir: str = ""
    backup_keep: int = 0


class BackupStatus(Value, frozen=True):
    """Of the backups that the leader takes by itself: the last good one, on the host of `node_id`, and the last try if
    that failed since."""

    taken_at_ns: int = 0
    path: str = ""
    size_bytes: int = 0
    node_id: str = ""
    failed_at_ns: int = 0
    error: str = ""


class RootRotation(Value, frozen=True):
    """The cluster's root is being replaced by another. `cross_pem` is the new root's key signed by the old root: who
    trusts only the old one follows it. What is sealed is what the cluster will have afterwards."""

    root_ca_pem: str = ""
    cross_pem: str = ""
    sealed_ca_key: bytes = b""
    sealed_worker_secret: bytes = b""
    sealed_manager_secret: bytes = b""
    began_ns: int = 0
    deadline_ns: int = 0


class FormerRoot(Value, frozen=True):
    """A root that was replaced. Until `until_ns`, who missed that can still find the way to the present one."""

    root_ca_pem: str = ""
    cross_pem: str = ""
    until_ns: int = 0


class Cluster(Value, frozen=True):
    """Sealed fields are encrypted with the key that only manager hosts have (see `manager/ca/authority.py`); `escrow`
    is that key, locked with the passphrase of backups (`manager/ca/escrow.py`)."""

    meta: Meta = Meta()
    spec: ClusterSpec = ClusterSpec()
    root_ca_pem: str = ""
    sealed_ca_key: bytes = b""
    sealed_worker_secret: bytes = b""
    sealed_manager_secret: bytes = b""
    rotation: RootRotation | None = None
    former_roots: tuple[FormerRoot, ...] = ()
    sealed_unlock_key: bytes = b""
    backup: BackupStatus = BackupStatus()
    escrow: bytes = b""

    @property
    def backups_open(self) -> bool:
        """Whether its backups open with what their operator knows, without a file of a manager's."""
        return bool(self.escrow or self.sealed_unlock_key)
