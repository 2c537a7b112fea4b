"""What holds when the user says nothing; filled in where a record is created, and nowhere else.

Swarm's values where users know them; ours where its were the complaint (a dead node is noticed after 10 s, not 16; a
certificate that leaks is good for a day, not for three months).
"""

from __future__ import annotations

from shoal.model.cluster import ClusterSpec
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.service import UpdatePolicy

SECOND_NS = 1_000_000_000

CLUSTER = ClusterSpec(
    name="default",
    task_history=5,
    heartbeat_ns=2 * SECOND_NS,
    node_timeout_ns=6 * SECOND_NS,
    certificate_life_ns=24 * 3600 * SECOND_NS,
    address_pool="10.0.0.0/8",
    address_pool_prefix=16,
    certificate_grace_ns=30 * 24 * 3600 * SECOND_NS,
    audit_retention_ns=90 * 24 * 3600 * SECOND_NS,
    backup_keep=7,
)

TASK_RESTART = RestartPolicy(condition=RestartCondition.ANY, delay_ns=5 * SECOND_NS)
UPDATE = UpdatePolicy(parallelism=1)

STOP_GRACE_NS = 10 * SECOND_NS
SHM_SIZE_BYTES = 64 << 20
PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MIN_MEMORY_BYTES = 6 << 20
