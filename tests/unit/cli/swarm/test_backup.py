"""`swarm backup`: a whole file or none, and what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.backup import Encoder, Header, Item
from shoal.v1 import control_pb2
from tests.unit.cli.manager import Manager, Shell

HEADER = Header("c1", 42, 1_764_000_000 * 10**9, "sqlite", "0.1.0")


@pytest.fixture(autouse=True)
def parts(manager: Manager) -> list[bytes]:
    encoder = Encoder()
    items = [Item("/cluster/c1", b"c"), Item("/node/n1", b"n"), Item("/node/n2", b"n")]
    manager.backup = [encoder.begin(HEADER), encoder.records(items), encoder.end()]
    return manager.backup


def test_a_backup_is_written_and_looked_into(shoal: Shell, tmp_path: Path) -> None:
    file = tmp_path / "it"
    lines = shoal.lines("swarm", "backup", "-o", str(file))
    assert lines[0] == f"Wrote 3 records of revision 42 to {file}."
    assert "seal.key" in lines[1]
    assert file.stat().st_mode & 0o777 == 0o600
    (found,) = json.loads("\n".join(shoal.lines("swarm", "backup", "inspect", str(file))))
    assert (found["ClusterID"], found["TakenAt"], found["HoldsSeal"]) == ("c1", "2025-11-24T16:00:00Z", False)
    assert found["Kinds"] == {"cluster": 1, "node": 2}
    assert shoal.lines("swarm", "backup", "verify", str(file))[0].startswith(f"{file} is whole: 3 records")


def test_the_passphrase_is_the_first_line_of_its_file(shoal: Shell, manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("correct horse\nanother\n")
    shoal.lines("swarm", "backup", "-q", "-o", str(tmp_path / "it"), "--passphrase-file", str(tmp_path / "pass"))
    assert manager.of(control_pb2.BackupClusterRequest)[0].passphrase == "correct horse"
    (tmp_path / "pass").write_text("\n")
    ran = shoal("swarm", "backup", "-o", str(tmp_path / "it"), "--passphrase-file", str(tmp_path / "pass"))
    assert "pass is empty" in ran.err


def test_what_breaks_off_leaves_the_older_backup(shoal: Shell, parts: list[bytes], tmp_path: Path) -> None:
    file = tmp_path / "it"
    shoal.lines("swarm", "backup", "-o", str(file))
    before = file.read_bytes()
    del parts[-1]
    ran = shoal("swarm", "backup", "-o", str(file))
    assert ran.code == 1
    assert "is cut off after" in ran.err
    assert file.read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []
