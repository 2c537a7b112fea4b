"""Daemon: the manager's process: it takes its seat, has its staff work, leads when its turn comes, and ends.

The agent of its host starts it and starts it again. It serves until SIGTERM or SIGINT; killed at any point, the
next one finds all that was acknowledged and goes on. What its arguments say is in `settings`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from manager import bootstrap
from manager.access import follow, open_store
from manager.api.locked import unlocked
from manager.ca.authority import Seal
from manager.ca.lock import Lock
from manager.control.loop import Loop
from manager.control.tenure import Tenure
from manager.deciders import DECIDERS, FINISH, prepare
from manager.founding import SEAL_FILE
from manager.leader import Leader
from manager.quorum import Quorum
from manager.seat import Seat, take_seat
from manager.settings import Settings, parse
from manager.staff import Staff
from manager.store.backup import take_over
from manager.store.base import Guard, Store
from manager.store.etcd.compaction import Compactor
from manager.store.etcd.store import EtcdStore
from manager.store.mirror import Mirror
from shoal import process
from shoal.channels import Channels
from shoal.clock import Clock, SystemClock
from shoal.rpc import ENGINE_SERVICES
from shoal.tasks import Group, first_of

log = logging.getLogger(__name__)

CONTROL_SERVICE = "shoal.v1.ControlService"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the manager; exits 1 with one sentence when it cannot start."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    process.collect_rarely()
    process.run("shoal-manager", settings.log_level, settings.data_dir, serve(settings))


async def serve(settings: Settings) -> None:
    """All of the manager, until the process is asked to end."""
    ending = process.asked_to_end()
    clock = SystemClock()
    lock, seal = Lock(settings.data_dir / SEAL_FILE), None
    if lock.locked:
        seal = await unlocked(lock, settings.socket, (CONTROL_SERVICE, *ENGINE_SERVICES), ending)
        if seal is None:
            return
    if settings.store.managed:
        if settings.founder is not None:
            bootstrap.begin(settings, settings.founder, clock.now_ns())
        bootstrap.revive(settings, clock.now_ns(), seal)
    store = await open_store(settings.store, settings.data_dir, settings.identity_dir, clock)
    try:
        await manage(store, settings, lock, seal, clock=clock, ending=ending)
    finally:
        await store.close()


async def manage(
    store: Store, settings: Settings, lock: Lock, seal: Seal | None, *, clock: Clock, ending: asyncio.Event
) -> None:
    """One of the managers that share `store`, until `ending`. `seal` is there if it had to be unlocked."""
    async with AsyncExitStack() as stack:
        await take_over(store)
        mirror = Mirror()
        async with Group() as group:
            group.start("mirror", mirror.run(store, prepare=prepare))
            await mirror.reached(0)
            seat = await take_seat(store, mirror, settings, seal=seal, clock=clock)
            tenure = Tenure(store, node_id=seat.node_id, address=settings.advertise, clock=clock)
            leader = Leader(store, mirror, tenure, node_id=seat.node_id, work=partial(lead, seat), clock=clock)
            channels = Channels(seat.identity.current)
            stack.push_async_callback(channels.close)
            staff = Staff(seat, tenure=tenure, leader=leader, lock=lock, channels=channels)
            if isinstance(store, EtcdStore) and seat.members is not None:
                group.start("access", follow(store, seat))
            group.start("tenure", tenure.run())
            group.start("leader", leader.run())
            for name, work in staff.works():
                group.start(name, work)
            stack.push_async_callback(staff.ports.close)
            await staff.ports.open()
            log.info("serving listen=%s socket=%s", settings.listen, settings.socket)
            process.notify("READY=1")
            await ending.wait()
            log.info("ending")
            process.notify("STOPPING=1")
            staff.ports.hide()
            # First of all: the agents find another manager, and another one leads, while calls here come to their end.
            await tenure.end()
            await staff.ports.close()


async def lead(seat: Seat, fence: tuple[Guard, ...]) -> None:
    """What the leader does, for as long as it leads; `fence` guards its writes."""
    store, mirror, clock = seat.store, seat.mirror, seat.clock
    works = [Loop(store, mirror, DECIDERS, clock=clock, fence=fence, finish=FINISH).run()]
    if isinstance(store, EtcdStore) and seat.members is not None:
        works.append(Quorum(seat.members, store, mirror, clock=clock, fence=fence).run())
        works.append(Compactor(store, clock=clock).run())
    await first_of(*works)
