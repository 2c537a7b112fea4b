"""What is found wrong with an audit record, whatever was done to it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.audit.chain import Faults, Head, Point, digest, key_of
from shoal import codec
from shoal.errors import InvalidArgument
from shoal.model.audit import AuditEntry

Lines = list[tuple[str, bytes]]


def record(count: int) -> tuple[Lines, Head]:
    lines: Lines = []
    last = Point()
    for number in range(1, count + 1):
        entry = AuditEntry(number, number, last.digest, "user ann", "10.0.0.1", "service create", f"service {number}")
        stored = codec.pack(entry)
        lines.append((key_of(number), stored))
        last = Point(number, digest(stored))
    return lines, Head(last)


def found(lines: Lines, head: Head, known: Point | None = None) -> list[str]:
    faults = Faults(head, known)
    told = [list(faults.of(*line)) for line in sorted(lines)]
    return [*itertools.chain(*told), *faults.end()]


def altered(line: tuple[str, bytes]) -> tuple[str, bytes]:
    entry = codec.unpack(AuditEntry, line[1])
    return line[0], codec.pack(msgspec.structs.replace(entry, actor="user ben"))


def test_a_whole_record_has_no_fault() -> None:
    assert found(*record(0)) == []
    assert found(*record(5)) == []


def test_a_removed_line_is_found_wherever_it_was() -> None:
    lines, head = record(5)
    assert found(lines[1:], head) == ["line 1 is missing"]
    assert found(lines[:1] + lines[3:], head) == ["lines 2 to 3 are missing"]
    assert found(lines[:4], head) == ["line 5 is missing"]
    assert found([], head) == ["lines 1 to 5 are missing"]


def test_an_altered_line_is_found_by_the_next_one_or_by_the_head() -> None:
    lines, head = record(3)
    (fault,) = found([lines[0], altered(lines[1]), lines[2]], head)
    assert fault.startswith("line 3 does not follow from line 2")
    assert found([*lines[:2], altered(lines[2])], head) == ["line 3, the last one, is not as it was written"]
    (fault,) = found([(lines[0][0], b"\x01junk"), *lines[1:]], head)[:1]
    assert fault.startswith("line 1 cannot be read")


def test_lines_that_changed_places_are_found() -> None:
    lines, head = record(3)
    swapped = [(lines[0][0], lines[1][1]), (lines[1][0], lines[0][1]), lines[2]]
    assert found(swapped, head)[:2] == [
        "line 1 was line 2: the order was changed",
        "line 2 was line 1: the order was changed",
    ]


def test_lines_that_were_put_in_are_found() -> None:
    lines, head = record(3)
    more = (key_of(4), lines[2][1])
    assert found([*lines, more], head) == ["line 4 stands after the last one that was written, 3"]


def test_what_was_trimmed_is_no_fault_and_what_is_left_of_it_is() -> None:
    lines, head = record(5)
    anchored = Head(head.last, Point(2, digest(lines[1][1])))
    assert found(lines[2:], anchored) == []
    assert found(lines[1:], anchored) == ["line 2 stands before the first one, 3"]
    (fault,) = found([altered(lines[2]), *lines[3:]], anchored)
    assert fault.startswith("line 4 does not follow from line 3")


def test_a_record_that_was_cut_off_with_its_head_is_found_by_a_point_of_before() -> None:
    lines, head = record(5)
    shorter, cut = record(3)
    assert found(shorter, cut) == []
    assert found(shorter, cut, head.last) == ["line 5 was there once, and the record ends with line 3"]
    assert found(lines, head, Point(3, digest(lines[2][1]))) == []
    assert found(lines, head, Point(3, b"other")) == ["line 3 is not what it was when its hash was noted"]


def test_a_point_is_read_as_it_was_printed() -> None:
    point = Point(7, b"\x01\xff")
    assert Point.parse(point.text) == point
    for text in ("", "7", "x:01", "7:zz"):
        with pytest.raises(InvalidArgument, match="give NUMBER:HASH"):
            Point.parse(text)


@given(st.data())
def test_no_change_of_any_byte_goes_unseen(data: st.DataObject) -> None:
    lines, head = record(4)
    at = data.draw(st.integers(0, 3))
    key, stored = lines[at]
    place = data.draw(st.integers(0, len(stored) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != stored[place]))
    lines[at] = (key, stored[:place] + bytes([other]) + stored[place + 1 :])
    assert found(lines, head)
