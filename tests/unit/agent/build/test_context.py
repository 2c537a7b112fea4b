"""Which files of contexts stay."""

from __future__ import annotations

import os
from pathlib import Path

from agent.build.context import Contexts


def built(contexts: Contexts, name: str, *files: bytes, used_s: int) -> None:
    """A context with these files, as if it had been built then."""
    with contexts.using(name, ()) as _:
        contexts.also([contexts.store(each) for each in files])
    os.utime(contexts.files.parent / "lists" / name, (used_s, used_s))


def test_contexts_are_measured_and_the_old_are_forgotten(tmp_path: Path) -> None:
    contexts = Contexts(tmp_path)
    built(contexts, "old", b"shared", b"alone", used_s=1_000)
    built(contexts, "new", b"shared", b"young", used_s=2_000)
    found = {each.name: each for each in contexts.measured()}
    assert sum(each.size_bytes for each in found.values()) == contexts.size_bytes() == len(b"sharedaloneyoung")
    assert found["new"].used_at_ns == 2_000 * 10**9
    assert contexts.prune(before_ns=1_500 * 10**9) == len(b"alone")
    assert [each.name for each in contexts.measured()] == ["new"]
    assert contexts.prune(before_ns=3_000 * 10**9) == len(b"sharedyoung")
    assert contexts.measured() == []


def test_a_context_that_could_not_be_written_down_is_measured_and_forgotten(tmp_path: Path) -> None:
    contexts = Contexts(tmp_path)
    built(contexts, "web", b"content", used_s=1_000)
    (tmp_path / "lists" / "web").unlink()  # as when the disk was full
    assert [(each.size_bytes, each.used_at_ns) for each in contexts.measured()] == [(7, 0)]
    assert contexts.prune(before_ns=1) == 7
    assert contexts.measured() == []
