"""The store: records behind revisions, and the indexed copy of them that decisions read.

`base` is the port, `sqlite` and `etcd` implement it; `records` says which key holds which noun; `view` is the indexed
copy and `mirror` keeps it current; `member` brings etcd's members and lets them go. One contract
suite (tests/contract/store) holds for every implementation.
"""
