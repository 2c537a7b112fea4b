"""Dispatcher: the manager's end of the agents' streams.

`assignment` says what a node has been told to do (pure); `session` sends it to one agent and hears it; `status`
writes what agents report of tasks, `liveness` what is known of nodes; `inventory` knows who holds which image;
`rpc` is the service that ties them to the wire.
"""
