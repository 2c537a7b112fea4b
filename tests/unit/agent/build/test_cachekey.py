"""When two steps are the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.build.cachekey import key_of, run_key
from agent.build.flags import Mount, MountKind

SECRET = Mount(kind=MountKind.SECRET, id="s")
STEP: dict[str, Any] = {
    "argv": ("/bin/sh", "-c", "make"),
    "environment": {"A": "1", "B": "2"},
    "workdir": "/w",
    "user": "web",
    "place": ("default", ()),
    "mounts": ((SECRET, ""), (Mount(target="/ctx"), "sha256:1")),
}


def test_only_the_topmost_layer_counts_since_it_stands_for_all() -> None:
    assert key_of("a", ["x", "y"], 1) == key_of("a", ["z", "y"], 1)
    assert key_of("a", ["x", "y"], 1) != key_of("a", ["y", "x"], 1)
    assert len({key_of("a", [], 1), key_of("b", [], 1), key_of("a", [], 2), key_of("a", ["x"], 1)}) == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"argv": ("/bin/sh", "-c", "make all")},
        {"environment": {"A": "1", "B": "3"}},
        {"environment": {"A": "1"}},
        {"workdir": "/"},
        {"user": ""},
        {"place": ("none", ())},
        {"mounts": ((SECRET, ""), (Mount(target="/ctx"), "sha256:2"))},
        {"mounts": ((SECRET, ""),)},
    ],
)
def test_a_command_is_another_with_anything_else_that_it_sees(changed: dict[str, Any]) -> None:
    assert run_key(["x"], **STEP) != run_key(["x"], **{**STEP, **changed})


def test_proxies_the_order_of_variables_and_whether_a_secret_must_be_are_no_part_of_it() -> None:
    environment = {"B": "2", "HTTP_PROXY": "http://proxy", "no_proxy": "*", "A": "1"}
    required = msgspec.structs.replace(SECRET, required=True)
    mounts = ((required, ""), (Mount(target="/ctx"), "sha256:1"))
    assert run_key(["x"], **STEP) == run_key(["x"], **{**STEP, "environment": environment, "mounts": mounts})
