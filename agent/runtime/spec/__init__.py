"""An OCI runtime-spec 1.x configuration as typed values: the edge where JSON ends.

`config` is the whole, of which `process`, `mount` and `resources` are parts. What this runtime does not do is refused
by name (`refusal`), so that no option is silently ignored. `blocks` turns the values into a syscall program, `cgroups`
takes the limits.
"""
