"""The folders of layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.image.content import Content
from agent.image.snapshot import Snapshots
from tests.unit.agent.disk import assert_spread


@pytest.mark.parametrize("name", ["unpack", "steps"])
def test_layers_that_are_made_are_spread_where_the_disk_can(tmp_path: Path, name: str) -> None:
    Snapshots(tmp_path / "image", Content(tmp_path / "content"))
    assert_spread(tmp_path / "image" / name)
