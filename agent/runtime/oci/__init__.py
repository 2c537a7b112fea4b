"""`shoal-runtime`: the runtime as an OCI command line, for Podman, containerd, dockerd and whoever else drives one.

It is the code that the keeper uses (`spec`, `blocks`, `mounts`, `confine`, `seccomp`, `cgroups`), without a keeper: who
calls wants the container's process for its own descendant, to reap it. `create` makes a child (`child`) that walks the
program as far as a gate, a FIFO in the container's directory (`record`), and is left to the caller's subreaper; `start`
opens the gate. Nothing stays behind but that directory. `main` is where a command line arrives.
"""
