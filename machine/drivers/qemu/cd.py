"""A CD with a few files in its root, as bytes (ISO 9660, ECMA-119). Names stand as they are given: Linux shows them so,
though the oldest readers want capitals and three letters behind a dot."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_SECTOR = 2048
# Sectors 0 to 15 are the system's. Then: the descriptor, the end of the descriptors, two path tables, the folder.
_DESCRIPTOR, _LITTLE_TABLE, _BIG_TABLE, _FOLDER = 16, 18, 19, 20
_IS_FOLDER = 2
# The first of January 1980: an image depends on its files alone.
_TIME = bytes([80, 1, 1, 0, 0, 0, 0])
_LONG_TIME = b"0" * 16 + b"\0"


def image(label: str, files: Mapping[str, bytes]) -> bytes:
    """`files` by their names; their folder must fit in a sector, which is some 40 of them."""
    records, contents, at = [], [], _FOLDER + 1
    for name in sorted(files):
        records.append(_record(name.encode(), at, len(files[name])))
        contents.append(_filled(files[name]))
        at += len(contents[-1]) // _SECTOR
    # The folder lists itself and what is above it, which is itself again.
    here = [_record(each, _FOLDER, _SECTOR, flags=_IS_FOLDER) for each in (b"\0", b"\1")]
    folder = b"".join([*here, *records])
    assert len(folder) <= _SECTOR, "too many files for one sector"
    parts = [
        bytes(_DESCRIPTOR * _SECTOR),
        _descriptor(label, here[0], sectors=at),
        _filled(b"\xffCD001\1"),
        _filled(_path_table("<")),
        _filled(_path_table(">")),
        _filled(folder),
        *contents,
    ]
    return b"".join(parts)


def _descriptor(label: str, root: bytes, *, sectors: int) -> bytes:
    return _filled(
        b"".join(
            [
                b"\1CD001\1\0",
                b" " * 32,
                label.encode().ljust(32),
                bytes(8),
                _both(sectors, "I"),
                bytes(32),
                _both(1, "H") * 2,
                _both(_SECTOR, "H"),
                _both(len(_path_table("<")), "I"),
                struct.pack("<II", _LITTLE_TABLE, 0),
                struct.pack(">II", _BIG_TABLE, 0),
                root,
                b" " * (4 * 128 + 3 * 37),
                _LONG_TIME * 4,
                b"\1",
            ]
        )
    )


def _record(name: bytes, sector: int, size: int, *, flags: int = 0) -> bytes:
    body = b"".join(
        [
            b"\0",
            _both(sector, "I"),
            _both(size, "I"),
            _TIME,
            bytes([flags, 0, 0]),
            _both(1, "H"),
            bytes([len(name)]),
            name,
        ]
    )
    body += bytes((len(body) + 1) % 2)
    return bytes([len(body) + 1]) + body


def _path_table(order: str) -> bytes:
    """Of the root, the only folder."""
    return struct.pack(f"{order}BBIH", 1, 0, _FOLDER, 1) + b"\0\0"


def _both(number: int, kind: str) -> bytes:
    """In both byte orders, one after the other."""
    return struct.pack(f"<{kind}", number) + struct.pack(f">{kind}", number)


def _filled(data: bytes) -> bytes:
    """Whole sectors."""
    return data + bytes(-len(data) % _SECTOR)
