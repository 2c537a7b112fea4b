"""Which rules a policy of devices comes to."""

from __future__ import annotations

import pytest

from agent.runtime.cgroups.base import DeviceRule
from agent.runtime.cgroups.devices import policy, v1_lines

ALL = DeviceRule(True, "a", -1, -1, "rwm")
NONE = ALL._replace(allow=False)
FUSE = DeviceRule(True, "c", 10, 229, "rwm")
NULL = DeviceRule(True, "c", 1, 3, "rwm")


def lines(*rules: DeviceRule) -> list[str]:
    """As they are written on a host with cgroup v1."""
    made = policy(rules)
    assert made is not None
    return [f"{file.removeprefix('devices.')} {line}" for file, written in v1_lines(made) for line in written]


def test_everything_is_denied_but_what_all_have_and_what_is_allowed_besides() -> None:
    usual = lines()
    assert usual[0] == "deny a"
    assert "allow c 1:3 rwm" in usual
    assert sorted(lines(FUSE)) == sorted([*usual, "allow c 10:229 rwm"])


def test_what_later_rules_make_needless_is_not_written() -> None:
    assert lines(FUSE, NONE, NULL) == lines()
    assert lines(ALL, NONE, FUSE) == lines(FUSE)


@pytest.mark.parametrize("rules", [(ALL,), (NONE, ALL), (NONE, ALL, FUSE)])
def test_all_allowed_is_no_policy(rules: tuple[DeviceRule, ...]) -> None:
    assert policy(rules) is None


def test_what_is_denied_after_all_was_allowed_is_denied() -> None:
    assert lines(ALL, FUSE._replace(allow=False))[:2] == ["allow a", "deny c 10:229 rwm"]
