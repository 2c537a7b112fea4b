"""The program that installs an artefact on a host, as it is sent there: by its text, to the host's own Python."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from machine.artefact import pack
from machine.run import unpack_program

# More than any file of zstandard has.
LIMIT_BYTES = 32 << 20


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Of a tree with one large module."""
    tree, path = tmp_path / "tree", tmp_path / "0.1.0-a.tar"
    shutil.copytree(Path(zstandard.__file__).parent, tree / "zstandard")
    module = tree / "shoal" / "names.py"
    module.parent.mkdir()
    module.write_bytes(bytes(2 * LIMIT_BYTES))
    pack(tree, path)
    shutil.rmtree(tree)
    return path


def unpack(archive: Path, sha256: str = "", *, limit_bytes: int = 0) -> subprocess.CompletedProcess[str]:
    """The limit is set by a program: a fork that runs Python may be ended by gRPC, whose threads other tests leave."""
    sha256 = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    limited = ["prlimit", f"--fsize={limit_bytes}"] if limit_bytes else []
    argv = [*limited, sys.executable, "-I", "-", archive, sha256, archive.with_name("0.1.0-a"), "/usr/bin/python3.11"]
    return subprocess.run(argv, input=unpack_program(), capture_output=True, text=True)


def test_a_version_appears_whole(archive: Path) -> None:
    done = unpack(archive)
    assert done.returncode == 0, done.stderr
    folder = archive.with_name("0.1.0-a")
    assert (folder / "lib/python3.11/site-packages/shoal/names.py").stat().st_size == 2 * LIMIT_BYTES
    assert (folder / "lib/python3.11/site-packages/zstandard/__init__.py").exists()
    assert (folder / ".complete").exists()
    assert [each.name for each in archive.parent.iterdir()] == ["0.1.0-a"]


def test_a_disk_that_is_full_is_one_sentence_and_nothing_stays(archive: Path) -> None:
    done = unpack(archive, limit_bytes=LIMIT_BYTES)
    assert (done.returncode, done.stderr) == (1, f"{archive.with_name('0.1.0-a')} cannot be written: File too large\n")
    assert list(archive.parent.iterdir()) == []


def test_what_was_not_sent_is_not_installed(archive: Path) -> None:
    done = unpack(archive, "0" * 64)
    assert (done.returncode, "is not what was sent" in done.stderr) == (1, True)
    assert not archive.with_name("0.1.0-a").exists()
