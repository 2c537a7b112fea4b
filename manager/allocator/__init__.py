"""The allocator: gives networks and services what they need before a task can be placed. Pure.

`vni` numbers overlays, `subnet` cuts addresses, `vip` gives a service its address on a network, `port` its
published ports. `plan` is the controller that puts these together, for the services that are `unsettled`; `lease` the
one that gives each node its block of a network. The first runs before the scheduler, the second after it.
"""
