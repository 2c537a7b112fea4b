"""ELF: what of a shared object is never loaded. Wheels bring libraries with their debugging information, a quarter of
what Shoal would weigh. Pure; see elf(5).
"""

from __future__ import annotations

import struct

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: all that Shoal runs on
_PROGRAMS = struct.Struct("<Q14xHH")
_PROGRAMS_AT = 32
_SEGMENT = struct.Struct("<8xQ16xQ")
_SECTIONS_AT, _SECTION_COUNTS_AT = 40, 60


def loaded(data: bytes) -> bytes:
    """A library without what stands behind its last segment: sections that no loader looks at, and the list of sections
    itself. Anything else is returned as it is."""
    if data[: len(_MAGIC)] != _MAGIC:
        return data
    at, size, count = _PROGRAMS.unpack_from(data, _PROGRAMS_AT)
    segments = (_SEGMENT.unpack_from(data, at + size * number) for number in range(count))
    end = max((offset + length for offset, length in segments), default=len(data))
    bare = bytearray(data[: max(end, at + size * count)])
    bare[_SECTIONS_AT : _SECTIONS_AT + 8] = bytes(8)
    bare[_SECTION_COUNTS_AT : _SECTION_COUNTS_AT + 4] = bytes(4)
    return bytes(bare)
