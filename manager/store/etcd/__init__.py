"""etcd behind the store's port: a thin client of our own, and the store on top of it.

From the bottom up: `settings` says where etcd is, `method` names its calls, `fault` what a failed one comes to,
`endpoint` is one connection, `client` chooses among several, `pulse` knows without being asked whether etcd answers;
`keyspace`, `transaction` and `event` translate without I/O, `sending`, `writer` and `watch` do, and `store` is what the
manager opens. `compaction` forgets old history. The wire is `proto/shoal/etcd`.
"""
