"""What `ps` shows of a container."""

from __future__ import annotations

import pytest

from cli.container.listing import row
from shoal.v1.types_pb2 import Container, ContainerSpec

DIGEST = "sha256:" + "ab" * 32
HEX = "ab" * 32


@pytest.mark.parametrize(
    ("asked", "untagged", "short", "whole"),
    [
        ("web:1", False, "web:1", "web:1"),
        ("web:1", True, HEX[:12], DIGEST),
        (f"web:1@{DIGEST}", False, "web:1", f"web:1@{DIGEST}"),
        (f"host:5000/web@{DIGEST}", False, "host:5000/web", f"host:5000/web@{DIGEST}"),
        (HEX, False, HEX[:12], HEX),
        (DIGEST, False, HEX[:12], DIGEST),
        (HEX[:6], False, HEX[:6], HEX[:6]),
    ],
)
def test_the_image_is_called_by_its_name_as_long_as_that_is_its_own(asked, untagged, short, whole):
    container = Container(spec=ContainerSpec(image=asked), image_id=DIGEST)
    assert row(container, now_ns=0, whole=False, untagged=untagged)["Image"] == short
    assert row(container, now_ns=0, whole=True, untagged=untagged)["Image"] == whole
