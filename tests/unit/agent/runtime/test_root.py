"""A container's root, detached: what the new calls for mounts cannot take goes the old way."""

from __future__ import annotations

import pytest

from agent.runtime import root
from agent.runtime.root import Root


@pytest.mark.parametrize("lower", ["/layers/a\\b", "/" + "x" * 255, "/" + "é" * 128])
def test_a_layer_that_fsconfig_would_misread_or_refuse_is_not_detached(lower: str) -> None:
    assert root.detachable(Root(lower=("/layers/a", "/" + "x" * 254), upper="/u", work="/w"))
    assert not root.detachable(Root(lower=("/layers/a", lower), upper="/u", work="/w"))
    assert not root.detachable(Root(lower=("/layers/a",), upper=lower, work="/w"))


def test_a_folder_of_any_name_is_detached_with_all_that_is_mounted_below_it() -> None:
    where = Root(path="/" + "x" * 300 + "\\")
    assert root.detachable(where)
    assert [op.call for op in root.detached(where)] == ["open_tree", "mount_setattr"]


def test_layers_without_a_writable_one_are_fixed() -> None:
    assert [op.call for op in root.detached(Root(lower=("/a",)))] == ["open_tree", "mount_setattr", "mount_setattr"]
    assert "upperdir" not in str([str(op) for op in root.detached(Root(lower=("/a", "/b")))])
