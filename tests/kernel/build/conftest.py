"""Builds on a whole engine, with the image of busybox that the tests of containers have."""

from __future__ import annotations

from tests.kernel.container.conftest import engine, own_network, shell

__all__ = ["engine", "own_network", "shell"]
