"""A trial: a cluster at work, round after round of faults, and after each round every invariant.

What must hold: no acknowledged write is lost; what is desired runs within the bound; no slot has two running tasks,
but while one of them departs from a drained node; a healthy node is never taken for dead; containers that nothing
happened to keep their process; every host's mesh answers, all the time where daemons alone are hit or a host is
drained. `say` is told all that happens, so that a failure can be given back as `--rounds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from shoal.rpc import dial, translated
from shoal.v1.control_pb2 import ListNodesRequest, ListTasksRequest
from shoal.v1.control_pb2_grpc import ControlServiceStub
from shoal.v1.types_pb2 import NODE_STATE_DOWN
from tests.cluster.chaos.client import Client
from tests.cluster.chaos.fault import Fault, blind, drained, excused, gentle, hits_manager, rebooted, text_of
from tests.cluster.chaos.rack import Rack
from tests.cluster.chaos.sight import ASK_S, NO_ANSWER, Sight, answers, doubled, look, unsettled
from tests.cluster.conftest import SERVE, eventually, web_image

BOUND_S = 180.0
STEADY = "steady"
HAND = "hand"
_WATCH_S = 0.25
# A look that takes longer is of a machine that is too busy, and so is a sleep that ends later: for a while nobody can
# be blamed for being late.
_SLOW_S = 1.0
_OVERSLEPT_S = 0.3
# What is answered late is answered: on a busy machine that takes seconds.
_ANSWER_S = 20.0
_PARDON_S = 15.0


class Violated(AssertionError):
    """An invariant does not hold. Its text begins with the round that broke it."""


def form(rack: Rack, folder: Path) -> None:
    """A cluster with the steady service on a published port, and a container by hand on every host."""
    lab, first = rack.lab, rack.hosts[0]
    image = web_image(folder)
    for host in rack.hosts:
        eventually(lambda host=host: lab.on(host, "shoal", "ps").returncode == 0, what=f"the agent of {host} answers")
        with image.open() as archive:
            lab.on_with(host, archive, "shoal", "import", *SERVE, "-", "web:1")
    store = ("--store", "etcd") if len(rack.managers) > 1 else ()
    lab.shoal(first, "swarm", "init", "--advertise-addr", lab.addresses[first], *store)
    for host in rack.hosts[1:]:
        role = "manager" if host in rack.managers else "worker"
        token = lab.shoal(first, "swarm", "join-token", "-q", role)
        lab.shoal(host, "swarm", "join", "--token", token, f"{lab.addresses[first]}:2377")
    replicas = 2 * len(rack.hosts)
    # What it was asked before it was told to end it still answers.
    ending = ("--stop-signal", "SIGTERM", "--stop-grace-period", "2s")
    words = ("--name", STEADY, "--replicas", str(replicas), "-p", "8080:80", *ending)
    lab.shoal(first, "service", "create", "-q", *words, "web:1")
    for host in rack.hosts:
        lab.shoal(host, "run", "-d", "--restart", "always", "--name", HAND, "web:1", "sleep", "1000000")


class Trial:
    """One run over a formed cluster."""

    def __init__(self, rack: Rack, chance: random.Random, *, say: Callable[[str], None] = print) -> None:
        self._rack = rack
        self._client = Client(rack, chance)
        self._say = say
        self._began = time.monotonic()
        self.rounds = 0
        self._pardoned_until = 0.0
        # Hosts that the machine was too busy to hear in time, in this round.
        self._late: set[str] = set()

    async def run(self, rounds: AsyncIterator[Sequence[Fault]]) -> None:
        """Leaves the cluster as it was formed. Raises Violated after the first round that broke something."""
        working = asyncio.create_task(self._client.run())
        try:
            before = await self._settled([])
            async for faults in rounds:
                self._tell(f"round {self.rounds + 1}: {text_of(faults)}")
                before = await self._round(faults, before)
                self.rounds += 1
            async with self._client.held:
                await self._client.remove_all()
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        ledger = self._client.ledger
        self._tell(f"{self.rounds} rounds, {ledger.acknowledged} writes acknowledged, {ledger.unknown} in doubt")

    async def _round(self, faults: Sequence[Fault], before: Sight) -> Sight:
        self._late = set()
        watching = [asyncio.create_task(self._watch(faults)), asyncio.create_task(self._call(faults))]
        try:
            await asyncio.gather(*(self._rack.happen(each) for each in faults))
            after = await self._settled(faults)
        finally:
            for each in watching:
                each.cancel()
        for each in watching:
            with contextlib.suppress(asyncio.CancelledError):
                await each
        wrong = self._disturbed(faults, before, after) + self._client.contradictions
        if wrong:
            raise Violated(self._verdict(faults, wrong))
        return after

    async def _settled(self, faults: Sequence[Fault]) -> Sight:
        """The cluster at rest, as every manager sees it; no write is under way while it is looked at."""
        began = time.monotonic()
        async with self._client.held:
            while True:
                wrong: list[str] = []
                for manager in self._rack.managers:
                    try:
                        sight = await look(self._rack, manager)
                        wrong += [f"{each} (says {manager})" for each in unsettled(self._rack, sight)]
                    except NO_ANSWER as error:
                        wrong.append(f"{manager}: {error}")
                waited_s = time.monotonic() - began
                if not wrong:
                    break
                if waited_s > BOUND_S:
                    raise Violated(self._verdict(faults, [f"not at rest after {BOUND_S:g} s:", *wrong]))
                await asyncio.sleep(0.5)
            seen = {name: wish for name, wish in sight.services.items() if name != STEADY}
            if lost := self._client.ledger.settle(seen):
                raise Violated(self._verdict(faults, lost))
        self._tell(f"at rest after {waited_s:.1f} s")
        return sight

    async def _watch(self, faults: Sequence[Fault]) -> None:
        """All the time: no healthy node is down, no slot runs twice. Ends when cancelled, or with what was wrong."""
        may = set(self._rack.hosts) if blind(faults, self._rack.managers) else excused(faults)
        silent = may | {each.host for each in faults}
        managers = [each for each in self._rack.managers if each not in silent] or self._rack.managers
        while True:
            began = time.monotonic()
            nodes, tasks = [], []
            with contextlib.suppress(*NO_ANSWER):
                async with dial(self._rack.socket(managers[self.rounds % len(managers)])) as channel:
                    with translated():
                        control: Any = ControlServiceStub(channel)
                        nodes = list((await control.ListNodes(ListNodesRequest(), timeout=ASK_S)).nodes)
                        tasks = list((await control.ListTasks(ListTasksRequest(), timeout=ASK_S)).tasks)
            if time.monotonic() - began > _SLOW_S and not hits_manager(faults):
                self._pardon()
            down = {each.node.description.hostname for each in nodes if each.node.status.state == NODE_STATE_DOWN}
            if (late := down - may - self._late) and time.monotonic() < self._pardoned_until:
                self._tell(f"too busy to hear {', '.join(sorted(late))} in time")
                self._late |= late
            wrong = [f"healthy node {host} was down" for host in sorted(down - may - self._late)] + doubled(tasks)
            if wrong:
                self._client.contradictions += [f"{each} ({self._elapsed()})" for each in wrong]
                return
            began = time.monotonic()
            await asyncio.sleep(_WATCH_S)
            if time.monotonic() - began > _WATCH_S + _OVERSLEPT_S:
                self._pardon()

    def _pardon(self) -> None:
        self._pardoned_until = time.monotonic() + _PARDON_S

    async def _call(self, faults: Sequence[Fault]) -> None:
        """All the time, where nothing stands in the way of a request: each host's mesh answers."""
        if not gentle(faults) or blind(faults, self._rack.managers):
            return
        while True:
            for host in self._rack.hosts:
                there = await answers(self._rack.lab.addresses[host], within_s=_ANSWER_S)
                if not there and time.monotonic() > self._pardoned_until:
                    self._client.contradictions.append(f"a request to {host} was not answered ({self._elapsed()})")
                    return
            await asyncio.sleep(_WATCH_S)

    def _disturbed(self, faults: Sequence[Fault], before: Sight, after: Sight) -> list[str]:
        """Containers that are not what they were, on hosts where they should be."""
        dead = rebooted(faults)
        moved = excused(faults) | drained(faults) | self._late
        if blind(faults, self._rack.managers):
            moved = set(self._rack.hosts)
        wrong = []
        for host in self._rack.hosts:
            was, now = before.containers[host], after.containers[host]
            if host not in dead and now.get(HAND) != was[HAND]:
                wrong.append(f"the container by hand on {host} was process {was[HAND]} and is {now.get(HAND)}")
            if host not in dead | moved:
                steady = {name: pid for name, pid in was.items() if name.startswith(f"{STEADY}.")}
                changed = {name: now.get(name) for name, pid in steady.items() if now.get(name) != pid}
                wrong += [f"{name} on {host} was process {steady[name]} and is {pid}" for name, pid in changed.items()]
        return wrong

    def _verdict(self, faults: Sequence[Fault], wrong: Sequence[str]) -> str:
        return "\n  ".join([f"{text_of(faults)}", *wrong])

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"

    def _tell(self, text: str) -> None:
        self._say(f"{self._elapsed()}  {text}")
