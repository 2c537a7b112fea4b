"""Which runtimes a host has, and what an operator may add."""

import pytest

from agent.container.runtimes import Runtimes, of_host
from shoal.errors import InvalidArgument


def test_ours_is_the_default_and_always_there() -> None:
    assert of_host().chosen("") == "shoal"
    assert of_host().program("shoal") == ""


def test_an_operator_adds_one_and_makes_it_the_default() -> None:
    runtimes = of_host("mine", ["mine=/bin/sh"])
    assert runtimes.chosen("") == "mine"
    assert runtimes.program("mine") == "/bin/sh"


@pytest.mark.parametrize("word", ["mine", "mine=", "mine=sh", "=/bin/sh", "shoal=/bin/sh", "mine=/nonexistent"])
def test_what_is_no_program_is_refused(word: str) -> None:
    with pytest.raises(InvalidArgument):
        of_host(added=[word])


def test_a_default_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown or invalid runtime name: nosuch"):
        of_host("nosuch")


def test_a_runtime_that_went_is_missed_by_name() -> None:
    with pytest.raises(InvalidArgument, match="crun"):
        Runtimes().chosen("crun")
