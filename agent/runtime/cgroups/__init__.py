"""Control groups of a container: `base` finds what this host has and joins `v2` and `v1` into one group.

`devices` is the device policy in both forms, text for v1 and BPF for v2.
"""
