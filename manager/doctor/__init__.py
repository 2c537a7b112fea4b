"""Doctor: what is wrong with the cluster, what that means, and what to do.

`facts` are gathered by `examine` from the records, the store and the hosts; `checks` judge them, purely.
"""
