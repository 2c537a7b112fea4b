"""The file of a backup: whole, or told as what it is."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from shoal.backup import Decoder, Encoder, Header, Item, examined
from shoal.errors import InvalidArgument, NotFound, Unsupported

HEADER = Header("c1", 7, 1_700_000_000_000_000_000, "sqlite", "0.1.0")
RECORDS = [
    [Item("/cluster/c1", b"cluster"), Item("/node/a", b"x" * 5000)],
    [Item("/node/b", random.Random(1).randbytes(2000))],
]


def made(*, compressed: bool = True) -> bytes:
    encoder = Encoder()
    header = Header(*(getattr(HEADER, field) for field in HEADER.__struct_fields__[:5]), compressed)
    return b"".join([encoder.begin(header), *map(encoder.records, RECORDS), encoder.end()])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    path.write_bytes(made())
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_what_went_in_comes_out(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "backup"
    path.write_bytes(made(compressed=compressed))
    with path.open("rb") as file:
        assert list(Decoder(file, "it").batches()) == RECORDS
    contents = examined(path)
    assert (contents.header.cluster_id, contents.header.revision, contents.records) == ("c1", 7, 3)
    assert contents.kinds == {"cluster": 1, "node": 2}
    assert contents.size_bytes == path.stat().st_size


def test_compression_makes_it_smaller() -> None:
    assert len(made()) < len(made(compressed=False)) - 4000


def test_every_cut_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(InvalidArgument, match=r"cut off|not a backup"):
            examined(file)


def test_every_changed_byte_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        file.write_bytes(changed)
        with pytest.raises((InvalidArgument, Unsupported)):
            examined(file)


def test_parts_of_two_backups_do_not_make_one(file: Path) -> None:
    one, other = Encoder(), Encoder()
    beginning = one.begin(HEADER) + one.records(RECORDS[0])
    other.begin(HEADER)
    other.records(RECORDS[1])
    file.write_bytes(beginning + other.end())
    with pytest.raises(InvalidArgument, match="do not belong together"):
        examined(file)


def test_what_follows_the_end_is_damage(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(InvalidArgument, match="something follows its end"):
        examined(file)


def test_a_newer_format_is_told_apart_from_damage(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:8] + struct.pack(">H", 2) + whole[10:])
    with pytest.raises(Unsupported, match="has format 2, this program knows 1"):
        examined(file)


def test_other_files_are_no_backups(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is a text of more than ten bytes.")
    for name, error, told in (
        ("text", InvalidArgument, "is not a backup of a swarm"),
        ("absent", NotFound, "there is no file"),
        (".", InvalidArgument, "is a directory"),
    ):
        with pytest.raises(error, match=told):
            examined(tmp_path / name)
