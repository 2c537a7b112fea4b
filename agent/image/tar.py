"""Reads tar archives as a stream: POSIX ustar and pax, GNU long names and sparse files, base-256 numbers.

Our own, because the standard library's reader takes a corrupt header in mid-archive for the end of the archive,
loops on negative sizes (CVE-2025-8194), and costs several times more per entry. Names stay bytes. Nothing is
written here: `unpack` applies entries, `archive` looks into them. Only the standard library is imported, since
the unpacking child starts with this file and little else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # as in `unpack`
    from collections.abc import Callable, Iterator

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_CONTIGUOUS, _SPARSE, _PAX, _PAX_GLOBAL, _SOLARIS_PAX = b"7", b"S", b"x", b"g", b"X"
_LONG_NAME, _LONG_LINK, _VOLUME = b"L", b"K", b"V"
_KINDS = frozenset((REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO))
_ZEROS = bytes(BLOCK)

# A pax header holds names, numbers and extended attributes (64 KiB each at most, xattr(7)).
MAX_PAX_BYTES = 1 << 20
MAX_SPARSE_PARTS = 100_000


class CorruptArchive(Exception):
    """What was read is no tar archive, or a damaged one."""


class Entry:
    """One member. `size` is that of the file; the archive holds less of it when `parts` says where data lies:
    (offset, length) of each part of a sparse file. No dataclass: a child that unpacks a layer would need longer to
    import that than it needs for most layers."""

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "parts", "size", "uid", "xattrs")

    def __init__(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime_ns: int,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
        parts: list[tuple[int, int]] | None = None,
    ) -> None:
        self.name, self.kind, self.mode = name, kind, mode
        self.uid, self.gid, self.size, self.mtime_ns = uid, gid, size, mtime_ns
        self.link, self.major, self.minor = link, major, minor
        self.xattrs = {} if xattrs is None else xattrs
        self.parts = parts


class Reader:
    """Iterates over the entries of the archive that `read(n)` delivers (fewer than n bytes only at its end).

    `data()` streams the current entry's content; what is not taken is skipped. `strict`: an archive that ends
    without its end mark was cut off; else it may end behind any entry. Raises CorruptArchive.
    """

    def __init__(self, read: Callable[[int], bytes], *, strict: bool = False) -> None:
        self._read = read
        self._strict = strict
        self._left = 0
        self._padding = 0
        self._begun = False

    def __iter__(self) -> Iterator[Entry]:
        while True:
            self._skip()
            entry = self._next()
            if entry is None:
                return
            yield entry

    def data(self, chunk_bytes: int = 1 << 18) -> Iterator[bytes]:
        """What the archive holds of the current entry: all of it, or the parts of a sparse file end to end."""
        while self._left:
            piece = self._exactly(min(chunk_bytes, self._left))
            self._left -= len(piece)
            yield piece

    def _skip(self) -> None:
        for _ in self.data():
            pass
        if self._strict:
            self._exactly(self._padding)
        elif self._padding:
            self._read(self._padding)  # umoci ends an archive right behind its last byte
        self._padding = 0

    def _next(self) -> Entry | None:
        """The next entry with what the extension headers before it say, or None at the end."""
        pax: dict[bytes, bytes] = {}
        sparse: list[tuple[bytes, bytes]] = []
        long_name = long_link = b""
        while True:
            block = self._read(BLOCK)
            if not block and not self._strict and not (pax or long_name or long_link):
                return None
            if len(block) < BLOCK:
                raise CorruptArchive("the archive is cut off")
            if block == _ZEROS:
                return None
            if not _sums_up(block):
                raise CorruptArchive(
                    "a header of the archive is damaged (wrong checksum)" if self._begun else "this is no tar archive"
                )
            self._begun = True
            kind, size = block[156:157], _number(block[124:136])
            if size < 0:
                raise CorruptArchive(f"an entry of the archive has the size {size}")
            if kind in (_PAX, _SOLARIS_PAX):
                pax, sparse = _pax_records(self._extension(size))
            elif kind == _PAX_GLOBAL:
                # Comments of git and the like; Go's reader and so docker apply nothing of it.
                self._extension(size)
            elif kind == _LONG_NAME:
                long_name = self._extension(size).partition(b"\0")[0]
            elif kind == _LONG_LINK:
                long_link = self._extension(size).partition(b"\0")[0]
            elif kind == _VOLUME:
                self._extension(size)
            else:
                return self._entry(block, pax, sparse, long_name, long_link)

    def _entry(
        self,
        block: bytes,
        pax: dict[bytes, bytes],
        sparse: list[tuple[bytes, bytes]],
        long_name: bytes,
        long_link: bytes,
    ) -> Entry:
        kind = _kind(block)
        size = _decimal(pax, b"size", _number(block[124:136]))
        if size < 0:
            raise CorruptArchive(f"an entry of the archive has the size {size}")
        entry = Entry(
            name=pax.get(b"path") or long_name or _name(block),
            kind=REGULAR if kind == _SPARSE else kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=_decimal(pax, b"uid", _number(block[108:116])),
            gid=_decimal(pax, b"gid", _number(block[116:124])),
            size=size if kind in (REGULAR, _SPARSE) else 0,
            mtime_ns=_time(pax[b"mtime"]) if b"mtime" in pax else _number(block[136:148]) * 10**9,
            link=pax.get(b"linkpath") or long_link or block[157:257].partition(b"\0")[0],
            xattrs={key[13:]: value for key, value in pax.items() if key.startswith(b"SCHILY.xattr.")},
        )
        if b"\0" in entry.name or b"\0" in entry.link:
            raise CorruptArchive("a name in the archive holds a zero byte")
        if kind in (CHARACTER, BLOCKDEV):
            entry.major, entry.minor = _number(block[329:337]), _number(block[337:345])
        if kind == REGULAR and entry.name.endswith(b"/"):
            entry.kind, entry.size = DIRECTORY, 0  # how tar wrote folders before 1988
        # Links and folders carry no data, whatever their size says (pax(1)); what v7 folders say is skipped.
        self._left = size if kind in (REGULAR, _SPARSE) else 0
        self._padding = -self._left % BLOCK
        if kind == _SPARSE:
            self._old_sparse(entry, block)
        elif any(key.startswith(b"GNU.sparse.") for key in pax):
            self._pax_sparse(entry, pax, sparse)
        return entry

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU's first form: four parts in the header, more in blocks that follow it."""
        parts = _sparse_numbers(block[386:482])
        entry.size = _number(block[483:495])
        more = block[482]
        while more:
            block = self._exactly(BLOCK)
            parts += _sparse_numbers(block[:504])
            more = block[504]
            if len(parts) > MAX_SPARSE_PARTS:
                raise CorruptArchive(f"a sparse file has more than {MAX_SPARSE_PARTS} parts")
        entry.parts = _checked_parts(parts, size=entry.size, stored=self._left)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]]) -> None:
        """GNU's later forms: 0.0 (repeated records), 0.1 (a map record), 1.0 (a map before the data)."""
        entry.name = pax.get(b"GNU.sparse.name") or entry.name
        entry.size = _decimal(pax, b"GNU.sparse.realsize", _decimal(pax, b"GNU.sparse.size", entry.size))
        if pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._sparse_map()
        elif b"GNU.sparse.map" in pax:
            numbers = [_digits(text) for text in pax[b"GNU.sparse.map"].split(b",") if text]
        else:
            numbers = [_digits(value) for _, value in pairs]
        parts = list(zip(numbers[::2], numbers[1::2], strict=False))
        entry.parts = _checked_parts(parts, size=entry.size, stored=self._left)

    def _sparse_map(self) -> list[int]:
        """Decimal lines in whole blocks: the count, then offset and length of each."""
        lines: list[bytes] = []
        rest, wanted = b"", 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise CorruptArchive("the map of a sparse file is cut off")
            rest += self._exactly(BLOCK)
            self._left -= BLOCK
            *found, rest = rest.split(b"\n")
            lines += found
            if len(rest) > 32 or len(lines) > 2 * MAX_SPARSE_PARTS + 64:
                raise CorruptArchive("the map of a sparse file is damaged")
            if lines:
                wanted = 1 + 2 * _digits(lines[0])
        return [_digits(line) for line in lines[1:wanted]]

    def _extension(self, size: int) -> bytes:
        if size > MAX_PAX_BYTES:
            raise CorruptArchive(f"an extended header of {size} bytes (the limit is {MAX_PAX_BYTES})")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._read(size) if size else b""
        if len(data) < size:
            raise CorruptArchive("the archive is cut off")
        return data


def _sums_up(block: bytes) -> bool:
    """The sum of the header's bytes with blanks for the sum itself is what it says; old tars summed signed bytes."""
    try:
        said = _number(block[148:156])
    except CorruptArchive:
        return False
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    return said in (total, total - 256 * sum(1 for each in block[:148] + block[156:] if each > 127))


def _kind(block: bytes) -> bytes:
    kind = block[156:157]
    if kind in (b"\0", _CONTIGUOUS):
        return REGULAR
    if kind not in _KINDS and kind != _SPARSE:
        raise CorruptArchive(f"an entry of the archive has the unknown type {kind!r}")
    return kind


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    # GNU tar ("ustar  ") keeps other things where POSIX ("ustar\0") keeps the prefix.
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(data: bytes) -> int:
    """An octal field, or GNU's base-256 where the first bit is set (two's complement)."""
    if data[0] & 0x80:
        number = int.from_bytes(data)
        bits = len(data) * 8
        return number - (1 << bits) if data[0] & 0x40 else number & ~(1 << (bits - 1))
    text = data.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise CorruptArchive("a header of the archive is damaged (no number where one belongs)") from error


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise CorruptArchive("an extended header of the archive is damaged (no number where one belongs)")
    return int(text)


def _decimal(pax: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    return _digits(pax[key]) if key in pax else otherwise


def _time(text: bytes) -> int:
    """Seconds with a decimal fraction, to nanoseconds, without the rounding of floats."""
    whole, _, fraction = text.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    return sign * (_digits(whole.lstrip(b"-")) * 10**9 + _digits(fraction[:9].ljust(9, b"0")))


def _pax_records(data: bytes) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """`LENGTH KEY=VALUE\\n` records; apart, in order, the repeated ones of sparse files. Empty values say nothing."""
    records: dict[bytes, bytes] = {}
    sparse: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data) and data[at] != 0:
        blank = data.find(b" ", at, at + 20)
        length = _digits(data[at:blank]) if blank > at else 0
        end = at + length
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if length < 5 or end > len(data) or not equals or not key or data[end - 1] != 0x0A:
            raise CorruptArchive("an extended header of the archive is damaged")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append((key, value))
        if value:
            records[key] = value
        at = end
    return records, sparse


def _sparse_numbers(data: bytes) -> list[tuple[int, int]]:
    found = []
    for at in range(0, len(data), 24):
        if not data[at]:
            break
        found.append((_number(data[at : at + 12]), _number(data[at + 12 : at + 24])))
    return found


def _checked_parts(parts: list[tuple[int, int]], *, size: int, stored: int) -> list[tuple[int, int]]:
    """Parts in order, within the file, and of as much data as the archive holds."""
    end = 0
    for offset, length in parts:
        if offset < end or length < 0:
            raise CorruptArchive("the map of a sparse file is damaged")
        end = offset + length
    if end > size or sum(length for _, length in parts) != stored:
        raise CorruptArchive("the map of a sparse file does not fit its data")
    return parts
