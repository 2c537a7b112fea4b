"""Many containers on one host, by the calls of a command on it: what a lab host runs for `bench_herd`.

`python -m tests.bench.herd VERB NUMBER` prints one number. It runs on the host that it measures, where /proc shows
nobody else's processes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cli.client import Client
from cli.endpoint import Selection
from shoal.settings import Paths
from shoal.v1 import engine_pb2, engine_pb2_grpc, types_pb2

IMAGE = "web:1"
AT_ONCE = 8  # enough to keep two processors busy
# By what their command lines contain.
DOCKERS = ("dockerd", "containerd")
OURS = ("shoal-agent", "agent.runtime.daemon", "agent.runtime.holder", "dns/resolver.py")


class Herd:
    """Containers named h0, h1… on this host."""

    def __init__(self, stub: engine_pb2_grpc.ContainerServiceAsyncStub) -> None:
        self._stub = stub

    async def start(self, number: int, *args: str) -> None:
        spec = types_pb2.ContainerSpec(image=IMAGE, args=args)
        await self._stub.CreateContainer(engine_pb2.CreateContainerRequest(name=f"h{number}", spec=spec))
        await self._stub.StartContainer(engine_pb2.StartContainerRequest(container=f"h{number}"))

    async def cycle(self, number: int) -> None:
        """From nothing to nothing: create, start, wait for the end, remove."""
        await self.start(number, "true")
        ended = await self._stub.WaitContainer(
            engine_pb2.WaitContainerRequest(container=f"h{number}", condition=engine_pb2.WAIT_CONDITION_NOT_RUNNING)
        )
        assert ended.exit_code == 0
        await self.remove(number)

    async def remove(self, number: int) -> None:
        await self._stub.RemoveContainer(engine_pb2.RemoveContainerRequest(container=f"h{number}", force=True))

    @staticmethod
    async def each(count: int, work: Callable[[int], Awaitable[None]]) -> None:
        """For 0 to `count` - 1, a few at once."""
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await work(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())


async def cycles_per_s(herd: Herd, count: int) -> float:
    await herd.each(2 * AT_ONCE, herd.cycle)
    began = time.perf_counter()
    await herd.each(count, herd.cycle)
    return count / (time.perf_counter() - began)


async def idle_kb(herd: Herd, count: int) -> float:
    """What each of `count` containers that sleep adds to our processes and to the files in memory."""
    await herd.each(AT_ONCE, lambda number: herd.start(count + number, "sleep", "1000000"))
    before = private_kb() + in_memory_kb()
    await herd.each(count, lambda number: herd.start(number, "sleep", "1000000"))
    return (private_kb() + in_memory_kb() - before) / count


async def idle_cpu(_: Herd, seconds: int) -> float:
    """Per cent of one processor that our processes take while nothing is asked of them."""
    await asyncio.sleep(5)
    before = cpu_s()
    await asyncio.sleep(seconds)
    return 100 * (cpu_s() - before) / seconds


async def clear(herd: Herd, count: int) -> float:
    began = time.perf_counter()
    await herd.each(count + AT_ONCE, herd.remove)
    return time.perf_counter() - began


async def dockers_kb(_: Herd, _number: int) -> float:
    return private_kb(DOCKERS)


def processes(words: tuple[str, ...]) -> list[Path]:
    """Those on this host whose command lines have one of these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if any(word in line for word in words) and entry.name != str(os.getpid()):
            found.append(entry)
    return found


def private_kb(words: tuple[str, ...] = OURS) -> int:
    """Memory that would be free without these processes."""
    lines = [line.split() for entry in processes(words) for line in (entry / "smaps_rollup").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0] in ("Private_Clean:", "Private_Dirty:", "Swap:"))


def in_memory_kb() -> int:
    """The files below /run/shoal, which is a tmpfs on a host."""
    return sum(path.lstat().st_blocks for path in Paths().run.rglob("*")) // 2


def cpu_s() -> float:
    fields = [(entry / "stat").read_text().rpartition(")")[2].split() for entry in processes(OURS)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


VERBS: dict[str, Callable[[Herd, int], Awaitable[float]]] = {
    "cycles": cycles_per_s,
    "kb": idle_kb,
    "cpu": idle_cpu,
    "clear": clear,
    "dockers": dockers_kb,
}


async def main(verb: str, number: int) -> None:
    async with Client(Selection()) as client:
        print(await VERBS[verb](Herd(client.containers), number))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
