"""What of this host's control groups a test can count on: `make test-v2` runs some of them where only the unified
hierarchy is mounted, which has fewer controllers than the host where others hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.runtime.cgroups.base import V1_NAMES, detect


def needs(*controllers: str) -> pytest.MarkDecorator:
    """A mark for a test of what these do."""
    missing = [each for each in controllers if not _has(each)]
    return pytest.mark.skipif(bool(missing), reason=f"no controller here: {', '.join(missing)}")


def where_possible(resources: dict[str, Any]) -> dict[str, Any]:
    """Those of an OCI configuration's limits that this host has a controller for."""
    return {name: limit for name, limit in resources.items() if _has(name)}


def folders(name: str) -> list[Path]:
    """The group of this name in every hierarchy."""
    top = Path("/sys/fs/cgroup")
    return [path for path in (top / name, *top.glob(f"*/{name}")) if path.is_dir()]


def _has(controller: str) -> bool:
    layout = detect()
    return controller in layout.v2_controllers or V1_NAMES.get(controller, controller) in layout.v1
