"""The scheduler: on which node a task runs, or why on none. Pure.

`plan` is the controller; `load` what each node carries, `filter` what rules a node out (each can say so in words),
`rank` which of the others is best: fewest tasks of the service, then fewest tasks, after evening out the branches
that placement preferences name. One decision per task: a task never moves.
"""
