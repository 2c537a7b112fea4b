"""CA: who is a member of the cluster.

`authority` signs certificates and seals secrets, `token` is what a joining host must know, `rpc` answers it.
"""
