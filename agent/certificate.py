"""Certificate: who this node is, and how it stays so. A certificate lives a day (a cluster may say otherwise)
and is renewed between half and two thirds of its life, at a moment of chance, so that a thousand nodes that joined
together do not ask together.

The first one comes from `agent/join.py`, or from the manager process on the first node. Where the host was off while
it ran out, the old key still gets a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agent.join import manager_address
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import ShoalError, Unavailable
from shoal.rpc import dial, translated
from shoal.settings import JOIN_PORT_OFFSET
from shoal.tasks import first_of
from shoal.tls import Identity, new_key_and_csr, signed_for_restore
from shoal.v1 import ca_pb2, ca_pb2_grpc

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 10.0
# A suspended host wakes late, and a clock is put right: the wall clock is looked at again at least this often.
LOOK_S = 10.0


class Credentials:
    """This node's identity, on the disk and in memory. Servers ask `current` at every handshake."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._current = identity
        self.renewed = asyncio.Event()
        # Set while the certificate serves no more, however long it lives; another is to be had within so many seconds.
        self.outdated = asyncio.Event()
        self.within_s = 0.0

    def current(self) -> Identity:
        return self._current

    def replace(self, identity: Identity) -> None:
        """From now on this is who we are. Raises what `Identity.save` raises; then nothing has changed."""
        identity.save(self._folder)
        self._current = identity
        self.outdated.clear()
        self.renewed.set()

    def trust(self, root_ca_pem: str) -> None:
        """From now on these are the roots to trust. Connections that stand, stay. Raises as `replace`."""
        if root_ca_pem and root_ca_pem != self._current.root_ca_pem:
            identity = msgspec.structs.replace(self._current, root_ca_pem=root_ca_pem)
            identity.save(self._folder)
            self._current = identity

    def expect(self, issuer_key: str, within_s: float) -> None:
        """The cluster's certificates are of this issuer now: another one is to be had within that time, unless ours
        is of it."""
        if issuer_key and issuer_key != self._current.info.issuer_key:
            self.outdate(within_s)
        else:
            self.outdated.clear()

    def outdate(self, within_s: float) -> None:
        self.within_s = within_s
        self.outdated.set()


class Renewal:
    """`managers` says whom to ask, best first."""

    def __init__(
        self,
        credentials: Credentials,
        managers: Callable[[], Sequence[str]],
        *,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._credentials = credentials
        self._managers = managers
        self._clock = clock
        self._chance = chance

    async def now(self) -> None:
        """Renew at once: the certificate is to say something else. Raises what the last manager said."""
        self._credentials.replace(await self._renewed())

    async def run(self) -> None:
        """Renew in time, for as long as the node is a member."""
        backoff = Backoff(10, 300, chance=self._chance)
        failing = False
        while True:
            await self._until_due()
            try:
                self._credentials.replace(await self._renewed())
                log.info("certificate renewed until=%s", self._credentials.current().not_after.isoformat())
                backoff.reset()
                failing = False
            except ShoalError as error:
                if not failing:
                    log.warning("the node's certificate could not be renewed, trying on: %s", error)
                failing = True
                await self._clock.sleep(backoff.next())

    async def _until_due(self) -> None:
        """A moment of chance in the certificate's life, or of the time that is left once it is outdated; now, where it
        is not valid (a clock that was ahead has been put right)."""
        identity = self._credentials.current()
        outdated, when_ns = self._credentials.outdated, due_ns(identity, self._chance())
        while (left_ns := when_ns - self._clock.now_ns()) > 0 and identity.valid_at(self._clock.now_ns()):
            if outdated.is_set():
                await self._clock.sleep(self._chance() * self._credentials.within_s)
                return
            await first_of(self._clock.sleep(min(LOOK_S, left_ns / 1e9)), outdated.wait())

    async def _renewed(self) -> Identity:
        """A new identity from the first manager that answers. One whose certificate the managers do not take, because
        it is not valid now or their root was replaced meanwhile, comes back by its old key."""
        last: ShoalError = Unavailable("no manager is known to ask for a new certificate")
        for manager in self._managers():
            try:
                identity = self._credentials.current()
                if not identity.valid_at(self._clock.now_ns()):
                    return await restore(identity, manager)
                return await renew(identity, manager)
            except ShoalError as error:
                last = error
            if self._credentials.outdated.is_set():
                try:
                    return await restore(identity, manager)
                except ShoalError as error:
                    last = error
        raise last


async def renew(identity: Identity, manager: str) -> Identity:
    """Ask `manager` ("HOST:PORT") for a new certificate over a new key."""
    key_pem, csr_pem = new_key_and_csr(identity.node_id)
    async with dial(manager, identity=identity) as channel:
        with translated():
            answer = await ca_pb2_grpc.CertificateServiceStub(channel).RenewCertificate(
                ca_pb2.RenewCertificateRequest(csr_pem=csr_pem), timeout=ASK_TIMEOUT_S
            )
    return Identity(answer.certificate_pem, key_pem, answer.root_ca_pem or identity.root_ca_pem)


async def restore(identity: Identity, manager: str) -> Identity:
    """A new identity instead of one that ran out while this host was off, from `manager`'s join port."""
    host, port = manager_address(manager)
    key_pem, csr_pem = new_key_and_csr(identity.node_id)
    request = ca_pb2.RestoreCertificateRequest(
        certificate_pem=identity.certificate_pem, csr_pem=csr_pem, signature=signed_for_restore(identity, csr_pem)
    )
    async with dial(f"{host}:{port + JOIN_PORT_OFFSET}", root_ca_pem=identity.root_ca_pem) as channel:
        with translated():
            answer = await ca_pb2_grpc.JoinServiceStub(channel).RestoreCertificate(request, timeout=ASK_TIMEOUT_S)
    return Identity(answer.certificate_pem, key_pem, answer.root_ca_pem or identity.root_ca_pem)


def due_ns(identity: Identity, chance: float) -> int:
    """When to renew: `chance` (0…1) of the way from half to two thirds of the certificate's life."""
    begin_ns = int(identity.issued_at.timestamp() * 1e9)
    life_ns = int(identity.not_after.timestamp() * 1e9) - begin_ns
    return begin_ns + int(life_ns * (1 / 2 + chance / 6))
