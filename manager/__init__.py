"""The manager: holds what users want, decides where it runs, and tells the agents.

`store` keeps the records (embedded SQLite, or etcd) and `mirror`s them in memory, indexed. `control` is the one loop
that runs, on the leader only, the pure deciders: `allocator` (addresses, ports), `orchestrator` (which tasks a
service needs) and `scheduler` (where a task runs). `dispatcher` streams assignments to agents and takes their
statuses; `ca` makes certificates and join tokens; `api` lets users in. `daemon` wires them. A floor imports only
the ones below it: store < control < orchestrator, scheduler, allocator, dispatcher, ca < api < daemon.
"""
