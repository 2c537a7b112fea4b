"""Containers as processes: `runtime.Runtime` is what the agent calls, the keeper is what does it.

The agent (asyncio) speaks to one small keeper per host over a unix socket (`wire`). The keeper (`keeper`, `reception`,
`execs`; an epoll loop) is the parent of every container and holds its stdio (`stdio`, `flow`, `tap`, `mark`, `logfile`,
`quoting`, `console`); its `starter` threads turn an OCI config (`spec`) into a syscall program (`blocks`, `mounts`,
`confine`, `seccomp`) in cgroups (`cgroups/`) and run it. `record` is a container's state on disk, `adopt` finds it
again after a crash, `holder` is a second tiny process that keeps descriptors alive while no keeper runs. All but
`runtime` import the standard library and their siblings only.
"""
