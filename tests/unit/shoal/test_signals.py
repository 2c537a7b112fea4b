"""Signals in docker's spellings."""

import pytest

from shoal.errors import InvalidArgument
from shoal.signals import signal_number


@pytest.mark.parametrize(
    ("word", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("HUP", 1), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)],
)
def test_known(word, number):
    assert signal_number(word) == number


@pytest.mark.parametrize("word", ["", "0", "65", "FOO", "-9", "RTMIN+99", "SIG", "²"])
def test_unknown(word):
    with pytest.raises(InvalidArgument, match="Invalid signal"):
        signal_number(word)
