"""`make chaos`: a long trial by chance, reproducible by its seed.

python -m tests.cluster.chaos --seed 7 --seconds 600 --managers 1
python -m tests.cluster.chaos --rounds "freeze n1 manager @0.5 +6"
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.cluster.chaos import cycle
from tests.cluster.chaos.fault import Fault, parse, round_of
from tests.cluster.chaos.rack import Rack, racked
from tests.cluster.chaos.trial import Trial, Violated, form


def main() -> int:
    options = argparse.ArgumentParser(prog="make chaos", description="Break a cluster in every way, and see it hold.")
    options.add_argument("--seed", type=int, default=time.time_ns() % 100_000, help="which faults, and when")
    options.add_argument("--seconds", type=float, default=600.0, help="begin no round after this long")
    options.add_argument("--managers", type=int, default=1, help="1 on SQLite, or 3 with the etcd that they run")
    options.add_argument("--hosts", type=int, default=3)
    options.add_argument("--rounds", action="append", default=[], help="these faults instead of chance's")
    options.add_argument("--cycles", type=int, default=0, help="afterwards, create and remove so often; 1000 is a lot")
    options.add_argument("--lab", default="storm", help="the name of its lab")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the rack is taken down
    print(f"chaos: seed {given.seed}, {given.hosts} hosts, {given.managers} managers", flush=True)
    try:
        storm(given)
    except Violated as error:
        print(f"VIOLATED with seed {given.seed}: {error}", flush=True)
        return 1
    return 0


def storm(given: argparse.Namespace) -> None:
    """Raises Violated."""
    breaks = bool(given.rounds or given.seconds)
    with (
        racked(given.lab, hosts=given.hosts, managers=given.managers, clocks=breaks) as rack,
        tempfile.TemporaryDirectory() as folder,
    ):
        form(rack, Path(folder))
        trial = Trial(rack, random.Random(given.seed), say=lambda text: print(text, flush=True))
        rounds = _given(given.rounds) if given.rounds else _by_chance(rack, given.seed, given.seconds)
        asyncio.run(trial.run(rounds))
        if left := cycle.run(rack, given.cycles) if given.cycles else []:
            raise Violated("\n  ".join([f"{given.cycles} cycles leave behind", *left]))


async def _by_chance(rack: Rack, seed: int, seconds: float) -> AsyncIterator[list[Fault]]:
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield round_of(chance, rack.hosts, rack.managers)


async def _given(rounds: list[str]) -> AsyncIterator[list[Fault]]:
    for text in rounds:
        yield parse(text)


if __name__ == "__main__":
    sys.exit(main())
