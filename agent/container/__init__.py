"""Containers of this host: the one path by which anything is created, started, stopped and removed.

`containers.Containers` is what the API and the tasks call. A wish becomes a container in `settle` and `isolation`
(pure: what it comes to with its image, and what can never be) and `create` (volumes, record); a start is done by
`launch`, which gathers the facts of this host and has `bundle` (pure) write the OCI config that `agent.runtime`
runs; `lifecycle` waits for the exit and does what `restart` (pure) decides. `ending` is what people do to a running
one, `amendment` what they change of one that is there. `record` keeps it on disk, `held` in memory, `adopt` brings
both together with what really runs when the agent starts. `carriage` and its `porter` bring files in and out,
`difference` tells what changed, `prober` asks after its `health`. Around these: `user`, `rootview`, `seed` (what
layers hold), `hostfiles` (/etc/hosts and its kin), `link`, `attach`, `exec` and `execution`, `logs`, `top`, `stats`,
`listing` and `filter`, `prune`, `signals`.
"""
