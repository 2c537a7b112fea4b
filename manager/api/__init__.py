"""The API: users' intent in, what became of it out. Nothing here decides where or when anything runs.

`control` is the service; one file per noun has its calls (`cluster`, `node`, `service`, `task`, `network`), `check`
says what a service may be, `find` what a reference stands for, `room` what they share. `relay` passes calls on an
engine to its node.
"""
