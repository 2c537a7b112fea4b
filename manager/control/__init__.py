"""Control: how decisions become writes.

`action` is what a decision returns, and the one function that commits it; `controller` is the protocol of a
decider; `loop` runs all deciders on the leader. Nothing here knows what a service should look like.
"""
