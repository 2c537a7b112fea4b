"""The disk that layers are on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.image.images import Images
from agent.image.unpack import mount_overlay
from agent.kernel import syscalls
from shoal.errors import Unsupported

pytestmark = pytest.mark.kernel


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A folder as in a container's root."""
    for name in ("lower", "upper", "work", "root"):
        (tmp_path / name).mkdir()
    root = tmp_path / "root"
    mount_overlay(str(root), f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work")
    yield root
    syscalls.call("umount2", str(root).encode(), 0)


async def test_a_disk_that_no_container_could_write_to_is_refused_at_once(overlay: Path) -> None:
    with pytest.raises(Unsupported, match=r"images cannot hold the layers of containers: overlay: .+") as refused:
        await Images.open(overlay / "images")
    assert "--data-dir" in refused.value.hint
    assert not list((overlay / "images/unpack").iterdir())
