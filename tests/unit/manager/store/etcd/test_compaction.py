from manager.store.etcd.compaction import compactable


def test_the_last_revisions_are_kept():
    assert compactable(90_000, 90_100, 10_000) == 80_100


def test_all_of_the_last_period_is_kept_however_much_it_was():
    assert compactable(5_000, 90_000, 10_000) == 5_000


def test_a_young_store_has_nothing_to_forget():
    assert compactable(0, 500, 10_000) == compactable(400, 500, 10_000) == 0
