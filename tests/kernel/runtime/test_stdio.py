"""Output, input, terminals and logs: nothing lost, nothing mixed, nobody stalled but the one who is slow."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.streams import Streams

pytestmark = pytest.mark.kernel


def lines(path: Path) -> list[dict[str, str]]:
    # A reader may come in the middle of a write.
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


async def test_an_attachment_before_the_start_misses_no_byte(box: Any) -> None:
    config = box.config("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo end >&2")
    _, out, err = await box.output(config, keep=True)
    assert out == "".join(f"line {number}\n" for number in range(20000))
    assert err == "end\n"
    logged = lines(box.log())
    assert "".join(line["log"] for line in logged if line["stream"] == "stdout") == out
    assert [line["log"] for line in logged if line["stream"] == "stderr"] == ["end\n"]


async def test_binary_output_arrives_unchanged_and_is_logged_in_pieces(box: Any) -> None:
    config = box.config("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; printf '\\377\\n'")
    streams = await box.runtime.attach("c")
    await box.start(config)
    got = b""
    while piece := await streams.read():
        got += piece[1]
    await streams.wait()
    assert got == b"x" * 100000 + b"\xff\n"
    logged = lines(box.log())
    assert [len(line["log"]) for line in logged] == [16384] * 6 + [100000 - 6 * 16384 + 2]
    assert logged[-1]["log"].endswith("x�\n")


async def test_several_attachments_all_get_everything(box: Any) -> None:
    attachments = [await box.runtime.attach("c") for _ in range(3)]
    await box.start(box.config("sh", "-c", "seq 1 5000; seq 1 10 >&2"))
    got = await asyncio.gather(*(box.drain(streams) for streams in attachments))
    assert len(set(got)) == 1
    assert got[0][1] == "".join(f"{number}\n" for number in range(1, 5001))


async def test_a_reader_that_stops_holds_up_only_its_own_container(box: Any) -> None:
    stuck = await box.runtime.attach("slow")
    await box.start(box.config("sh", "-c", "head -c 8192000 /dev/zero | tr '\\0' x; sleep 100"), name="slow")
    await asyncio.wait_for(stuck.read(), 60)  # and no more
    _, out, _ = await asyncio.wait_for(box.output(box.config("seq", "1", "20000"), name="quick"), 60)
    assert len(out) == sum(len(f"{number}\n") for number in range(1, 20001))
    assert box.log("slow").stat().st_size < 8_192_000
    await stuck.close()  # the rest goes to the log
    await box.until(lambda: sum(len(line["log"]) for line in lines(box.log("slow"))) == 8_192_000, "the log is whole")


async def test_input_and_its_end(box: Any) -> None:
    streams = await box.runtime.attach("c", stdin=True)
    await box.start(box.config("sh", "-c", "wc -c; echo after"), stdin=True)
    data = os.urandom(1_000_000)
    await streams.write(data)
    await streams.close_stdin()
    assert (await box.drain(streams))[1] == "1000000\nafter\n"


async def test_input_before_the_start_is_kept(box: Any) -> None:
    streams = await box.runtime.attach("c", stdin=True)
    await streams.write(b"early\n")
    await streams.close_stdin()
    await box.start(box.config("cat"), stdin=True)
    assert (await box.drain(streams))[1] == "early\n"


async def test_without_stdin_the_input_is_empty(box: Any) -> None:
    assert await box.sh("wc -c; ls -l /proc/self/fd/0 | grep -c /dev/null") == "0\n1\n"


async def test_an_echo_through_a_process_that_writes_as_it_reads(box: Any) -> None:
    """Input and output of 4 MB at once through `cat` must not deadlock."""
    streams = await box.runtime.attach("c", stdin=True)
    await box.start(box.config("cat"), stdin=True, log_path="")
    data = os.urandom(4_000_000)

    async def write() -> None:
        await streams.write(data)
        await streams.close_stdin()

    writing = asyncio.create_task(write())
    got = bytearray()
    while piece := await streams.read():
        got += piece[1]
    await writing
    assert bytes(got) == data


async def read_until(streams: Streams, word: bytes) -> bytes:
    got = b""
    while word not in got:
        piece = await asyncio.wait_for(streams.read(), 60)
        assert piece is not None, got
        got += piece[1]
    return got


async def test_a_terminal(box: Any) -> None:
    streams = await box.runtime.attach("c", stdin=True)
    await box.start(box.config("sh"), tty=True, stdin=True, rows=24, columns=80)
    await streams.write(b"tty; stty size; stat -c %t:%T /dev/console\n")
    assert b"/dev/pts/0\r\n24 80\r\n88:0" in await read_until(streams, b"88:0")
    await box.runtime.resize("c", 50, 100)
    await streams.write(b"stty size; echo do''ne >&2\n")
    got = await read_until(streams, b"done")
    assert b"50 100" in got
    await streams.resize(11, 12)
    await streams.write(b"stty size; echo do''ne\n")
    assert b"11 12" in await read_until(streams, b"done")
    # One process says it and sleeps: between two, the signal would find the shell alone in the foreground.
    await streams.write(b"sh -c 'echo sl\"\"eeps; exec sleep 100'\n")
    await read_until(streams, b"sleeps")  # a terminal that is interrupted forgets what nobody has read yet
    await streams.write(b"\x03")  # the terminal turns it into SIGINT for the foreground
    await streams.write(b"echo exit was $?\n")
    await read_until(streams, b"exit was 130")
    await streams.write(b"exit 7\n")
    assert (await streams.wait()).code == 7
    assert any("50 100" in line["log"] for line in lines(box.log()))


async def test_a_terminal_belongs_to_the_user(box: Any) -> None:
    streams = await box.runtime.attach("c")
    await box.start(
        box.config("sh", "-c", "stat -c %u /dev/pts/0; echo x > /dev/tty", user={"uid": 12, "gid": 0}), tty=True
    )
    assert (await box.drain(streams))[1] == "12\r\nx\r\n"


async def test_the_log_is_rotated_by_size(box: Any) -> None:
    await box.output(box.config("seq", "1", "1000"), keep=True, log_max_bytes=10000, log_max_files=3)
    names = sorted(path.name for path in box.directory.glob("c.log*"))
    assert names == ["c.log", "c.log.1", "c.log.2"]
    kept = [line["log"] for name in reversed(names) for line in lines(box.directory / name)]
    assert kept == [f"{number}\n" for number in range(1001 - len(kept), 1001)]
    for name in names[1:]:
        assert 10000 <= (box.directory / name).stat().st_size < 10200


async def test_a_log_that_cannot_be_written_stops_nothing(box: Any) -> None:
    _, out, _ = await box.output(box.config("echo", "x"), log_path="/no/such/directory/log")
    assert out == "x\n"
