"""A virtual machine's link to a bridge, in a network namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.kernel


def in_namespace(script: str) -> str:
    """What the script says in a network namespace that has a bridge, br0."""
    whole = f"ip link add br0 type bridge && exec {sys.executable} -c '{script}'"
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", whole], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def test_a_tap_is_on_its_bridge_for_as_long_as_somebody_has_it() -> None:
    said = in_namespace("""
import json, os, subprocess
from machine.drivers.qemu import tap
def links():
    shown = json.loads(subprocess.run(["ip", "-j", "link", "show", "master", "br0"], capture_output=True).stdout)
    return [each["ifname"] for each in shown]
held = [tap.open_on("br0"), tap.open_on("br0")]
print(*links())
for each in held:
    os.close(each)
print(*links())
""")
    assert said == "shoalvm0 shoalvm1\n\n"


def test_a_bridge_that_is_none_is_refused() -> None:
    said = in_namespace("""
from machine.drivers.qemu import tap
from shoal.errors import NotFound, ShoalError
for name, kind in (("br9", NotFound), ("lo", ShoalError)):
    try:
        tap.open_on(name)
    except kind as error:
        print(error)
""")
    assert "there is no bridge br9" in said.splitlines()[0]
    assert "ip link set shoalvm0 master lo up" in said.splitlines()[1]
