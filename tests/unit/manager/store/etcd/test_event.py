from hypothesis import given
from hypothesis import strategies as st

from manager.store.base import Change, Commit
from manager.store.etcd.event import Joint
from manager.store.etcd.keyspace import MARK, Keyspace
from shoal.etcd.v3 import wire_pb2 as wire


def put(key: str, revision: int) -> wire.Event:
    return wire.Event(kv=wire.KeyValue(key=f"/ours{key}".encode(), value=b"x", mod_revision=revision))


def gone(key: str, revision: int) -> wire.Event:
    return wire.Event(type=wire.Event.TYPE_DELETE, kv=wire.KeyValue(key=f"/ours{key}".encode(), mod_revision=revision))


def joined(joint: Joint, *parts: tuple[list[wire.Event], bool]) -> list[list[Commit]]:
    return [list(joint.whole(wire.WatchResponse(events=events, fragment=more))) for events, more in parts]


def test_events_become_commits_by_revision():
    (commits,) = joined(Joint(Keyspace("/ours"), 0), ([put("/a", 5), gone("/b", 5), put("/a", 6)], False))
    assert commits == [
        Commit(5, (Change("/a", b"x", 5), Change("/b", None, 5))),
        Commit(6, (Change("/a", b"x", 6),)),
    ]


def test_a_revision_counts_only_once_it_is_whole():
    first, second, third = joined(
        Joint(Keyspace("/ours"), 0),
        ([put("/a", 5), put("/b", 6)], True),
        ([put("/c", 6)], True),
        ([put("/d", 6)], False),
    )
    assert [commit.revision for commit in first] == [5]
    assert second == []
    assert [[change.key for change in commit.changes] for commit in third] == [["/b", "/c", "/d"]]


def test_what_was_delivered_before_is_left_out():
    (commits,) = joined(Joint(Keyspace("/ours"), 5), ([put("/a", 4), put("/b", 5), put("/c", 6)], False))
    assert [commit.revision for commit in commits] == [6]


def test_an_empty_value_is_no_deletion():
    event = wire.Event(kv=wire.KeyValue(key=b"/ours/a", mod_revision=5))
    (commits,) = joined(Joint(Keyspace("/ours"), 0), ([event], False))
    assert commits[0].changes[0].value == b""


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.data())
def test_however_it_is_cut_the_same_comes_out(sizes, data):
    events = [put(f"/{place}", revision) for revision, size in enumerate(sizes, 1) for place in range(size)]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events)), max_size=8)) | {len(events)})
    parts = [events[begin:end] for begin, end in zip([0, *cuts], cuts, strict=False)]
    answers = [(part, number < len(parts)) for number, part in enumerate(parts, 1)]
    commits = [commit for found in joined(Joint(Keyspace("/ours"), 0), *answers) for commit in found]
    assert [(commit.revision, len(commit.changes)) for commit in commits] == list(enumerate(sizes, 1))


def test_the_stores_own_mark_moves_the_revision_and_is_shown_to_nobody():
    (commits,) = joined(Joint(Keyspace("/ours"), 0), ([put(MARK, 5), put("/a", 6)], False))
    assert [(commit.revision, len(commit.changes)) for commit in commits] == [(5, 0), (6, 1)]
