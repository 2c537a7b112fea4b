"""`shoal context`: daemons under names, of which one is the current. They are kept in a file of the user's
(`cli/endpoint.py`).

`listing` looks and chooses, `record` makes, changes and removes, `carriage` takes one to another computer.
"""
