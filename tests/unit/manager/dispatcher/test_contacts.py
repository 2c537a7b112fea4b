"""Contacts beside their plain definition, whatever happens in whatever order."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from manager.dispatcher.contacts import Contacts
from manager.dispatcher.judgement import Contact

NODES = ("a", "b", "c", "d")
EVENTS = st.tuples(
    st.sampled_from(("heard", "broke", "away", "answered", "forget", "postpone", "keep")), st.sampled_from(NODES)
)


def after(events: list[tuple[str, str]]) -> tuple[Contacts, dict[str, Contact]]:
    """One event a second; what is known then, and what is to be."""
    contacts, plain = Contacts(), dict[str, Contact]()
    for now, (what, id) in enumerate(events, 1):
        match what:
            case "heard":
                contacts.heard(id, now)
                plain[id] = Contact(now)
            case "broke":
                contacts.broke(id, now)
                if id in plain and plain[id].broken_at is None:
                    plain[id] = Contact(plain[id].heard_at, now)
            case "away":
                contacts.broke(id, now, back_by=now + 9)
                if id in plain and plain[id].broken_at is None:
                    plain[id] = Contact(plain[id].heard_at, now, now + 9)
            case "answered":
                contacts.answered(id, now)
                if id in plain and plain[id].broken_at is not None:
                    plain[id] = msgspec.structs.replace(plain[id], answered_at=now)
            case "forget":
                contacts.forget(id)
                plain.pop(id, None)
            case "postpone":
                contacts.postpone(0.5)
                plain = {
                    each: Contact(*(None if at is None else at + 0.5 for at in msgspec.structs.astuple(was)))
                    for each, was in plain.items()
                }
            case "keep":
                contacts.keep({id})
                plain = {each: was for each, was in plain.items() if each == id}
    return contacts, plain


@given(st.lists(EVENTS, max_size=20), st.sets(st.sampled_from(NODES)), st.integers(0, 20))
def test_whoever_is_not_surely_alive_is_doubtful(events: list[tuple[str, str]], among: set[str], before: int) -> None:
    contacts, plain = after(events)
    alive = {id for id, each in plain.items() if each.broken_at is None and each.heard_at > before}
    found = list(contacts.doubtful(among, before))
    assert len(found) == len(set(found))
    assert set(found) == among - alive


@given(st.lists(EVENTS, max_size=20))
def test_what_is_known_of_a_node_is_the_last_that_happened(events: list[tuple[str, str]]) -> None:
    contacts, plain = after(events)
    for id in NODES:
        assert contacts.get(id) == plain.get(id)
        assert contacts.stands(id) == (id in plain and plain[id].broken_at is None)
