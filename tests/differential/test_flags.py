"""The flags of docker's client: each is ours too, or is refused by name."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from cli.group import load
from cli.refused import refused
from cli.registry import COMMANDS

# Docker's client of 2020 had a hand in Kubernetes.
GONE = {"--default-stack-orchestrator", "--kubeconfig", "--kubernetes"}
# As help shows them: "  -H, --human    ..." and "      --platform string   ..."
_FLAG = re.compile(r"(?m)^ {2}(?:(-\w), | {4})(--[\w-]+)")


def known(path: str) -> set[str]:
    return {name for flag in load(path).reader.flags for name in (*flag.names, flag.negative)}


def docker_has(path: str) -> set[str]:
    """The flags of its command at `path`; none where it has no such command."""
    shown = subprocess.run(["docker", *path.split(), "--help"], capture_output=True, text=True, check=False).stdout
    if not re.search(rf"(?m)^Usage:\s+docker {path}( |$)|^ +docker {path}(,|$)", shown):
        return set()
    return {name for pair in _FLAG.findall(shown) for name in pair if name}


def test_a_flag_of_docker_is_known_or_refused_by_name() -> None:
    with ThreadPoolExecutor(4) as threads:
        theirs = dict(zip(COMMANDS, threads.map(docker_has, COMMANDS), strict=True))
    assert {"--rm", "--gpus", "-v"} <= theirs["run"], "docker's help cannot be read (any more)"
    strange = {path: sorted(flags - known(path) - set(refused(path)) - GONE) for path, flags in theirs.items()}
    assert {path: flags for path, flags in strange.items() if flags} == {}


@pytest.mark.parametrize("path", COMMANDS)
def test_what_is_refused_is_not_there(path: str) -> None:
    assert known(path).isdisjoint(refused(path))
