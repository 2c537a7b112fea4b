"""What goes with an image, and what holds it."""

from __future__ import annotations

import pytest

from agent.image.catalog import Catalog, Name, Record
from agent.image.removal import Removal, User, decide, nobody, outcome, unused, whole, with_parents
from shoal.errors import Conflict


def record(letter: str, below: Record | None = None) -> Record:
    """An image committed on another, with one layer more."""
    chain = (*(below.chain_ids if below is not None else ()), "sha256:" + letter * 64)
    parent = below.id if below is not None else ""
    return Record("sha256:0" + letter * 63, "sha256:" + "f" * 64, {}, chain, chain, (10,) * len(chain), 0, parent)


def name(text: str) -> str:
    return f"docker.io/library/{text}"


BASE = record("a")
MIDDLE = record("b", BASE)
TOP = record("c", MIDDLE)
ALL = Catalog(
    images={each.id: each for each in (BASE, MIDDLE, TOP)},
    names={name("base:1"): Name(BASE.id, BASE.digest), name("top:1"): Name(TOP.id, TOP.digest)},
)


def test_what_others_were_committed_on_stays_until_the_last_of_them_goes() -> None:
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        decide(ALL, BASE, named="", force=True, users=())
    assert decide(ALL, BASE, named=name("base:1"), force=False, users=()) == Removal((name("base:1"),), delete=False)
    decided = with_parents(ALL, TOP, decide(ALL, TOP, named=name("top:1"), force=False, users=()), users=nobody)
    assert decided == Removal((name("top:1"),), delete=True, parents=(MIDDLE.id,))
    removed, after = outcome(ALL, TOP, decided)
    assert removed.deleted == (TOP.id, *TOP.chain_ids[2:], MIDDLE.id, *MIDDLE.chain_ids[1:])
    assert removed.freed_bytes == 20
    assert after.images.keys() == {BASE.id}


def test_a_parent_that_somebody_uses_or_that_has_another_child_stays() -> None:
    def used(image_id: str) -> list[User]:
        return [("1" * 64, "user", False)] if image_id == MIDDLE.id else []

    assert with_parents(ALL, TOP, Removal((), delete=True), users=used).parents == ()
    other = record("d", MIDDLE)
    two = ALL.with_image(other)
    assert with_parents(two, TOP, Removal((), delete=True), users=nobody).parents == ()
    assert with_parents(two.without_image(TOP.id), other, Removal((), delete=True), users=nobody).parents == (
        MIDDLE.id,
    )


def test_a_prune_leaves_what_is_there_for_its_children() -> None:
    nameless = ALL.without_names([name("top:1")])
    assert ALL.intermediate(MIDDLE.id)
    assert [each.id for each in unused(nameless, all=False, users=nobody)] == [TOP.id]
    assert whole(nameless, TOP, users=nobody) == Removal((), delete=True, parents=(MIDDLE.id,))
    assert [each.id for each in unused(ALL, all=True, users=nobody)] == [BASE.id, TOP.id]
    assert whole(ALL, BASE, users=nobody) == Removal((name("base:1"),), delete=False)


def test_an_image_that_comes_again_keeps_its_parent() -> None:
    again = record("c")
    assert ALL.with_image(again).images[TOP.id].parent == MIDDLE.id
