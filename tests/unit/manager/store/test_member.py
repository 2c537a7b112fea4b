import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.store.member import Member, why_not_remove


def members(voters: int, learners: int = 0) -> list[Member]:
    return [Member(f"{n:x}", f"m{n}", f"https://m{n}:2380", (), n > voters) for n in range(1, voters + learners + 1)]


@pytest.mark.parametrize(
    ("voters", "leaving", "healthy", "reason"),
    [
        (3, "1", "123", ""),
        (3, "1", "23", ""),  # the dead one goes
        (3, "1", "12", "without m1 only 1 of 2 members would be well, and it takes 2 to write anything"),
        (3, "1", "1", "only 1 of 3 members are well, and it takes 2 to remove one"),
        (5, "1", "123", "without m1 only 2 of 4 members would be well, and it takes 3 to write anything"),
        (5, "4", "123", ""),
        (2, "1", "12", ""),
        (2, "1", "2", "only 1 of 2 members are well, and it takes 2 to remove one"),
        (1, "1", "1", "m1 is the only member that votes: without it there is no store"),
        (1, "f", "1", ""),  # it is no member any more
    ],
)
def test_a_removal_that_would_lose_quorum_is_told_why(voters, leaving, healthy, reason):
    assert why_not_remove(members(voters), leaving, healthy=set(healthy)) == reason


def test_a_learner_may_always_go():
    assert why_not_remove(members(1, learners=1), "2", healthy=set()) == ""


@given(st.integers(1, 7), st.data())
def test_what_may_be_removed_leaves_a_majority(voters, data):
    ids = [member.id for member in members(voters)]
    healthy, leaving = data.draw(st.sets(st.sampled_from(ids))), data.draw(st.sampled_from(ids))
    if why_not_remove(members(voters), leaving, healthy=healthy) == "":
        assert 2 * len(healthy - {leaving}) > voters - 1 > 0
