"""A cached tree, without the minutes that a real one takes: `tests/cluster/test_machine_systemd.py` boots real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.drivers.local import tree
from shoal.errors import ShoalError, Unsupported

# A Debian that has one file, and a key that nobody else may have.
MAKE = """\
mkdir -p "$TMPDIR/made/etc/ssh" "$TMPDIR/made/dev" && echo "$@" > "$TMPDIR/made/etc/words"
touch "$TMPDIR/made/etc/ssh/ssh_host_ed25519_key" "$TMPDIR/made/dev/null"
for archive; do :; done
exec tar -C "$TMPDIR/made" -cf "$archive" .
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in mmdebstrap's place."""
    path = tmp_path / "bin" / "mmdebstrap"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)


def test_a_tree_is_made_once_for_the_same_packages(program: Path, tmp_path: Path) -> None:
    write(program, MAKE)
    heard: list[str] = []
    made = tree.obtain(["sudo", "dbus"], tmp_path / "trees", tell=heard.append)
    assert "--include=dbus,sudo" in (made / "etc/words").read_text()
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*")) == ["dev", "etc", "etc/ssh", "etc/words"]
    write(program, "exit 1")
    assert tree.obtain(["dbus", "sudo", "dbus"], tmp_path / "trees", tell=heard.append) == made
    assert len(heard) == 1
    with pytest.raises(ShoalError):
        tree.obtain(["dbus"], tmp_path / "trees", tell=heard.append)


def test_a_tree_that_could_not_be_made_is_made_the_next_time(program: Path, tmp_path: Path) -> None:
    write(program, "mkdir -p $TMPDIR/half; echo E: no such package >&2; exit 25")
    with pytest.raises(ShoalError, match="E: no such package"):
        tree.obtain(["dbus"], tmp_path / "trees", tell=print)
    write(program, MAKE)
    made = tree.obtain(["dbus"], tmp_path / "trees", tell=print)
    assert sorted(path.name for path in (tmp_path / "trees").iterdir()) == [made.name, f"{made.name}.lock"]


def test_without_mmdebstrap_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="no mmdebstrap"):
        tree.obtain(["dbus"], tmp_path / "trees", tell=print)
