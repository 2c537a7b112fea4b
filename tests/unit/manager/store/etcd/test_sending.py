import pytest

from manager.store.base import Guard, Put, Txn
from manager.store.etcd.sending import happens_once


@pytest.mark.parametrize(
    ("txn", "once"),
    [
        (Txn((Guard("/a", 0),), (Put("/a", b""),)), True),
        (Txn((Guard("/a", 7), Guard("/fence", 3)), (Put("/a", b""), Put("/b", b""))), True),
        (Txn((Guard("/a", 7),), (), ("/a",)), True),
        # Done again, this would change something again.
        (Txn((), (Put("/a", b""),)), False),
        (Txn((Guard("/fence", 3),), (Put("/a", b""),)), False),
        # What was not there is not there afterwards either: its guard holds still.
        (Txn((Guard("/a", 0),), (Put("/b", b""),), ("/a",)), False),
    ],
)
def test_what_guards_what_it_changes_happens_once(txn, once):
    assert happens_once(txn) is once
