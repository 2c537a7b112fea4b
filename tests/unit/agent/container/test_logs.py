"""Reading logs: tails over rotated files, bounds in time, following without losing a line."""

import asyncio
import datetime
import json

import pytest

from agent.container.logs import LogLine, Window, batches
from shoal.clock import SystemClock

SECOND = 10**9
START = 1_700_000_000


def line(number, stream="stdout", text=None):
    at = datetime.datetime.fromtimestamp(START + number, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    log = f"{number}\n" if text is None else text
    return json.dumps({"log": log, "stream": stream, "time": f"{at}.5Z"}) + "\n"


def write(path, numbers):
    path.write_text("".join(line(each) for each in numbers))


async def read(path, *, following=lambda: False, **window):
    found = []
    async for batch in batches(path, Window(**window), clock=SystemClock(), following=following):
        assert batch
        found += batch
    return found


async def numbers(path, **more):
    return [int(each.data) for each in await read(path, **more)]


@pytest.fixture
def rotated(tmp_path):
    path = tmp_path / "x.log"
    write(tmp_path / "x.log.2", range(3))
    write(tmp_path / "x.log.1", range(3, 6))
    write(path, range(6, 9))
    return path


async def test_all_files_oldest_first(rotated):
    assert await numbers(rotated) == list(range(9))


@pytest.mark.parametrize("tail", range(12))
async def test_a_tail_reaches_back_over_files(rotated, tail):
    assert await numbers(rotated, tail=tail) == list(range(9))[max(0, 9 - tail) :]


async def test_a_line_says_stream_time_and_bytes(tmp_path):
    path = tmp_path / "x.log"
    path.write_text(line(0, "stderr", "ü no newline"))
    assert await read(path) == [LogLine(at_ns=START * SECOND + SECOND // 2, stderr=True, data="ü no newline".encode())]


async def test_bounds_in_time(rotated):
    since, until = (START + 2) * SECOND, (START + 5) * SECOND
    assert await numbers(rotated, since_ns=since, until_ns=until) == [2, 3, 4]


async def test_no_file_no_lines(tmp_path):
    assert await read(tmp_path / "none.log") == []
    assert await read(tmp_path / "none.log", tail=5) == []


async def test_torn_and_strange_lines_are_left_out(tmp_path):
    path = tmp_path / "x.log"
    path.write_bytes(line(1).encode() + b"{torn\n\n[]\n" + line(2).encode() + b'{"log":"not yet')
    assert await numbers(path) == [1, 2]


async def test_a_big_tail_in_blocks(tmp_path):
    path = tmp_path / "x.log"
    write(path, range(20_000))
    assert await numbers(path, tail=15_000) == list(range(5_000, 20_000))


async def test_following_sees_what_comes_over_rotations_and_ends(tmp_path):
    path = tmp_path / "x.log"
    over = asyncio.Event()
    seen = []

    async def follow():
        async for batch in batches(path, Window(), clock=SystemClock(), following=lambda: not over.is_set()):
            seen.extend(int(each.data) for each in batch)

    reading = asyncio.create_task(follow())
    for number in range(60):
        with path.open("a") as file:
            file.write(line(number))
        if number % 7 == 0:
            for old in (2, 1):
                if (tmp_path / f"x.log.{old}").exists():
                    (tmp_path / f"x.log.{old}").rename(tmp_path / f"x.log.{old + 1}")
            path.rename(tmp_path / "x.log.1")
        async with asyncio.timeout(60):  # who falls behind by more files than are kept loses some
            while len(seen) < number - 14:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
    over.set()
    await asyncio.wait_for(reading, 60)
    assert seen == list(range(60))


async def test_following_a_line_that_is_written_in_two_parts(tmp_path):
    path = tmp_path / "x.log"
    path.write_text("")
    over = asyncio.Event()
    reading = asyncio.create_task(numbers(path, following=lambda: not over.is_set()))
    text = line(7)
    for part in (text[:10], text[10:]):
        with path.open("a") as file:
            file.write(part)
        await asyncio.sleep(0.03)
    over.set()
    assert await asyncio.wait_for(reading, 60) == [7]


async def test_following_until_a_time_that_has_passed_ends(tmp_path):
    path = tmp_path / "x.log"
    write(path, range(3))
    assert await asyncio.wait_for(numbers(path, following=lambda: True, until_ns=(START + 2) * SECOND), 60) == [0, 1]
