"""What is shown of the host's processes."""

import pytest

from agent.container.top import processes, selected
from shoal.errors import InvalidArgument, ShoalError

LISTING = """\
UID          PID    PPID CMD
root           1       0 /sbin/init splash
root          42       1 sleep 100  200
web          420       1 nginx: master process
"""


def test_only_its_own_processes_and_the_last_field_as_a_whole():
    found = selected(LISTING, [42, 7])
    assert found.titles == ("UID", "PID", "PPID", "CMD")
    assert found.rows == (("root", "42", "1", "sleep 100  200"),)


@pytest.mark.parametrize("listing", ["", "USER COMMAND\nroot init\n"])
def test_a_listing_without_pids(listing):
    with pytest.raises(ShoalError, match="Couldn't find PID field"):
        selected(listing, [1])


async def test_what_ps_does_not_understand_is_told_in_its_words():
    with pytest.raises(InvalidArgument, match=r"^ps --odd: .*unknown"):
        await processes([1], ["--odd"])
