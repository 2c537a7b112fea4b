"""The agent: what one host does, as root.

`daemon` wires everything and serves it. By hand: `api/` (one RPC servicer per noun) over `container`, `image`,
`network`, `volume`, `runtime`. In a cluster, in the order in which an assignment flows: `session` (the stream to a
manager) → `assignment` (what this host was told to do) → `worker` (one runner per task; `database` keeps it over
a reboot) → `taskrun` (carries one task out, as `task` decides) → `reporter` (what became of it, upwards).
`mesh` hands the cluster's networks and endpoints to `network`. `membership` is how a host comes in (`join`) and
leaves, `member` what runs in between, `supervise` the manager process on hosts that are managers too.

The agent is never in the data path of a running container: kill it and all goes on; it adopts what runs.
"""
