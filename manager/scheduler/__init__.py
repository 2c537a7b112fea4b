"""The scheduler: on which node a task runs, or why on none. Pure.

`plan` is the controller, `round` what it decides in one call, `early` the same for tasks that are not written yet.
`load` has what each node carries, in columns that follow the view (`labels`, `overlay` and `candidates` are its parts);
`draft` is a copy to place on. Tasks that are equal are decided on together (`group`): by `filter` what has room, by
`rank` and `share` who gets how many, and `emptiest` where there are only a few.
One decision per task: a task never moves.
"""
