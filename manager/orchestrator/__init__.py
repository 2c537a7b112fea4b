"""The orchestrator: which tasks a service needs. Pure.

`services` is the controller that looks at one service: its places (`slot`) are filled by `replicated` or
`per_node`, what has ended is started again by `restart`, what is outdated is replaced by `update`. `enforce` takes
tasks off nodes where they cannot stay, and `reaper` forgets the finished ones. None of them chooses a node or
knows addresses.
"""
