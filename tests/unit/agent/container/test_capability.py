"""Which capabilities a process gets."""

from agent.container.capability import DEFAULT, capabilities
from agent.runtime.capability import NAMES


def get(*, privileged=False, add=(), drop=(), available=NAMES):
    return set(capabilities(privileged=privileged, add=add, drop=drop, available=available))


def test_dockers_fourteen():
    assert get() == set(DEFAULT)
    assert len(DEFAULT) == 14


def test_add_and_drop_in_any_spelling():
    assert get(add=("net_admin",), drop=("CAP_MKNOD",)) == (set(DEFAULT) | {"CAP_NET_ADMIN"}) - {"CAP_MKNOD"}


def test_drop_all_leaves_what_is_added():
    assert get(add=("CHOWN",), drop=("ALL",)) == {"CAP_CHOWN"}


def test_add_all_leaves_what_is_not_dropped():
    assert get(add=("ALL",), drop=("CHOWN",)) == set(NAMES) - {"CAP_CHOWN"}


def test_privileged_has_all_that_the_host_has():
    assert get(privileged=True, available=("CAP_CHOWN", "CAP_KILL")) == {"CAP_CHOWN", "CAP_KILL"}
