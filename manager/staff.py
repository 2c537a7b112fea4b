"""Staff: all that works in a manager whether it leads or not: sessions and calls behind its ports, the audit record,
backups, the doctor, and what it looks after on its own disk. `daemon` has it work; who leads is `leader`'s business."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any

import grpc.aio

from manager.access import SQLITE_FILE
from manager.api.control import ControlService
from manager.api.enlisting import Enlisting
from manager.api.peer import PeerService
from manager.api.permission import Permission
from manager.api.recorder import Recorder
from manager.api.relay import Relay
from manager.api.room import Room
from manager.api.staleness import Staleness
from manager.audit.denials import Denials
from manager.audit.ledger import Ledger
from manager.audit.retention import keep_short
from manager.backups import Backups
from manager.ca.lock import Lock, keep_following
from manager.ca.login import opened
from manager.ca.rpc import CertificateServicer, JoinServicer
from manager.control.tenure import Tenure
from manager.dispatcher.errand import Errands
from manager.dispatcher.holders import Holders
from manager.dispatcher.inventory import Inventory
from manager.dispatcher.location import Location
from manager.dispatcher.rpc import DispatcherService
from manager.dispatcher.summoner import Summoner
from manager.doctor.examine import Doctor
from manager.founding import keep_identity, with_former
from manager.leader import Leader
from manager.ports import Ports, Services
from manager.seat import Seat
from shoal.channels import Channels
from shoal.forward import Forward
from shoal.rpc import ENGINE_SERVICES


class Staff:
    """Of the manager on `seat`. `channels` lead to the other nodes; `ports` are opened by whoever has the rest work."""

    def __init__(self, seat: Seat, *, tenure: Tenure, leader: Leader, lock: Lock, channels: Channels) -> None:
        self._seat = seat
        self._leader = leader
        self._lock = lock
        self._ledger = Ledger(seat.store, seat.seal, seat.clock)
        self._denials = Denials(self._ledger, seat.clock)
        self._recorder = Recorder(self._ledger, self._denials, seat.mirror, seat.node_id)
        self._inventory = Inventory()
        self._holders = Holders(self._inventory, seat.mirror, channels, own_id=seat.node_id)
        self._errands = Errands(seat.clock)
        self._relay = Relay(seat.mirror, seat.node_id, channels)
        self._gate = Permission(seat.mirror, seat.clock).gate()
        self._dispatcher = DispatcherService(
            store=seat.store,
            mirror=seat.mirror,
            clock=seat.clock,
            inventory=self._inventory,
            location=Location(seat.mirror, self._holders, self._errands, open_login=partial(opened, seat.seal)),
            channels=channels,
            own_id=seat.node_id,
            tenure=tenure,
            leads=self._leads,
        )
        self.ports = Ports(
            seat.settings.listen,
            seat.settings.socket,
            self._services(),
            recorder=self._recorder,
            gate=self._gate,
            staleness=Staleness(seat.store),
            shown=seat.identity.current,
            trusting=lambda: with_former(seat.identity.current(), seat.mirror),
        )

    def works(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """What runs for as long as the manager lives, each with its name."""
        seat = self._seat
        summoner = Summoner(
            seat.mirror,
            identity=seat.identity.current,
            managers=seat.managers,
            leads=self._leads,
            clock=seat.clock,
        )
        backups = Backups(seat.store, seat.mirror, seat.seal, own_id=seat.node_id, leads=self._leads, clock=seat.clock)
        yield "dispatcher", self._dispatcher.run()
        yield "gate", self._gate.run()
        yield "summoner", summoner.run()
        yield "backups", backups.run()
        yield "lock", keep_following(self._lock, seat.mirror, seat.seal, seat.clock)
        yield "denials", self._denials.run()
        yield "retention", keep_short(self._ledger, seat.mirror, seat.clock, leads=self._leads)
        yield "identity", keep_identity(seat.mirror, seat.signer.current, seat.settings.identity_dir, seat.clock)

    def _services(self) -> Services:
        """What stands behind the ports."""
        seat = self._seat
        renewal = CertificateServicer(mirror=seat.mirror, authority=seat.signer.current, clock=seat.clock)
        join = JoinServicer(
            mirror=seat.mirror,
            authority=seat.signer.current,
            seal=seat.seal,
            clock=seat.clock,
            managers=seat.managers,
            ledger=self._ledger,
            store_kind=seat.store.kind,
        )
        enlisting = Enlisting(seat.store, seat.mirror, seat.clock, seat.seal, seat.settings.store, seat.members)
        relayed = Forward(ENGINE_SERVICES, self._relay.choose, whom=self._relay.whom, around=self._recorder.relayed)
        return Services(
            control=ControlService(self._room()),
            dispatcher=self._dispatcher,
            renewal=renewal,
            join=join,
            peer=PeerService(self._inventory, self._errands, self._dispatcher.withdrawals, enlisting),
            engine=relayed,
        )

    def _room(self) -> Room:
        seat = self._seat
        doctor = Doctor(
            seat.store,
            seat.mirror,
            channel_to=self._agent_of,
            leader=lambda: self._leader.holder,
            file=seat.settings.data_dir / SQLITE_FILE,
            clock=seat.clock,
        )
        return Room(
            store=seat.store,
            mirror=seat.mirror,
            clock=seat.clock,
            seal=seat.seal,
            authority=seat.signer.current,
            ledger=self._ledger,
            holders=self._holders,
            own_id=seat.node_id,
            leader=lambda: self._leader.holder,
            lock=self._lock,
            doctor=doctor,
        )

    def _leads(self) -> bool:
        return self._leader.leads

    async def _agent_of(self, node_id: str) -> grpc.aio.Channel:
        return await self._relay.choose("GetInfo", (("shoal-node", node_id),))
