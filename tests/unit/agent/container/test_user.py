"""Users by name and number, with docker's words for those that are not there."""

import pytest

from agent.container.user import User, user_of
from shoal.errors import StartFailed

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
broken
web:x:1000:1001:,,,:/home/web:/bin/sh
short:x:7:8
nobody:*:65534:65534:nobody:/:/bin/false
"""
GROUP = b"root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\ndocker:x:999:web,nobody\n"


def who(wanted, *, extra=()):
    return user_of(wanted, passwd=PASSWD, group=GROUP, extra_groups=extra)


def test_nobody_named_is_root_with_its_home_and_groups():
    assert who("") == User(0, 0, (0, 10), "/root")


def test_a_name_has_its_ids_home_and_supplementary_groups():
    assert who("web") == User(1000, 1001, (1001, 10, 999), "/home/web")


def test_a_number_is_looked_up_too():
    assert who("1000") == who("web")


def test_a_number_without_entry_has_group_zero_and_no_home():
    assert who("4242") == User(4242, 0, (0,), "/")


def test_a_group_given_replaces_all():
    assert who("web:docker") == User(1000, 999, (999,), "/home/web")
    assert who("1:2") == User(1, 2, (2,), "/")


def test_groups_can_be_added_by_name_and_number():
    assert who("4242", extra=("wheel", "77")).groups == (0, 10, 77)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("ghost", "unable to find user ghost: no matching entries in passwd file"),
        ("web:ghosts", "unable to find group ghosts: no matching entries in group file"),
        ("99999999999", "must be in range"),
        ("1:99999999999", "must be in range"),
    ],
)
def test_who_is_not_there_is_said(wanted, said):
    with pytest.raises(StartFailed, match=said):
        who(wanted)


def test_an_image_without_passwd_has_root():
    assert user_of("", passwd=b"", group=b"") == User(0, 0, (0,), "/")
