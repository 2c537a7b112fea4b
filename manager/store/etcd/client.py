"""Client: etcd's calls, made at one of several endpoints; when that one fails, at the next.

What certainly was not done is tried again within the call's time; what may have been done only if the caller says that
doing it `again` is harmless. A call never lasts longer than its time; `trouble` says why one that used it up could not
be done, until the next one is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from manager.store.etcd import method
from manager.store.etcd.endpoint import Endpoint, Metadata, Stream, ended
from manager.store.etcd.fault import Fault, Outcome
from manager.store.etcd.method import A, Method, Q
from manager.store.etcd.settings import EtcdSettings
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

log = logging.getLogger(__name__)

# Longer than an election (1 s), so that one is not noticed; short enough to say no while somebody waits.
CALL_S = 3.0
# How long one of several endpoints may keep a call that another could answer.
ATTEMPT_S = 1.5
CONNECT_S = 1.0
# Ask a member that knows of no leader not to pretend that all is well (clientv3.WithRequireLeader).
_NEEDS_LEADER = ("hasleader", "true")


class Client:
    """`trouble` is empty while etcd answers; `heard_at` is when it last did, by the clock's monotonic time."""

    def __init__(self, settings: EtcdSettings, clock: Clock) -> None:
        self._settings = settings
        self.clock = clock
        self._endpoints = [Endpoint(address, settings) for address in settings.endpoints]
        self._at = 0
        self._token = ""
        self._term = 0
        self._closing: set[asyncio.Task[None]] = set()
        # Endpoints that were given up and have not answered since.
        self._silent: set[str] = set()
        self.trouble = ""
        self.heard_at = clock.monotonic()
        # Set when a stream broke: whoever looks after the endpoints should look now.
        self.suspicious = asyncio.Event()

    async def ask(
        self,
        what: Method[Q, A],
        request: Q,
        *,
        again: bool,
        timeout_s: float = CALL_S,
        attempt_s: float = ATTEMPT_S,
    ) -> A:
        """Raises Unavailable when no endpoint answered in time: without `again` it may have happened; and whatever
        `fault` makes of a refusal."""
        deadline = self.clock.monotonic() + timeout_s
        backoff = Backoff(0.05, 0.5)
        reasons: dict[str, str] = {}
        failures = 0
        while (left_s := deadline - self.clock.monotonic()) > 0:
            endpoint = self._endpoints[self._at]
            try:
                await endpoint.connect(min(left_s, CONNECT_S))
                metadata = (_NEEDS_LEADER, *await self._token_for(endpoint))
                bound_s = min(left_s, attempt_s) if again and len(self._endpoints) > 1 else left_s
                answer = await endpoint.ask(what, request, timeout_s=bound_s, metadata=metadata)
            except Fault as fault:
                reasons[endpoint.address] = fault.why
                failures += 1
                self._learn(endpoint, fault, again=again)
                if failures % len(self._endpoints) == 0:
                    await self.clock.sleep(min(backoff.next(), max(0, deadline - self.clock.monotonic())))
            else:
                self._heard(endpoint)
                return answer
        error = _silent(reasons)
        if not self.trouble:
            log.warning("%s", error.message)
        self.trouble = error.message
        raise error

    @property
    def position(self) -> tuple[str, int]:
        """The endpoint that is used, and the term of etcd's leader as far as it is known: what was on its way when one
        of them changed may be lost."""
        return self._endpoints[self._at].address, self._term

    async def look(self, *, timeout_s: float = CALL_S) -> int:
        """etcd's present revision, from where most members agree: so the endpoint serves, and `position` is known."""
        key = self._settings.prefix.rstrip("/") + "/"
        request = wire.RangeRequest(key=key.encode(), keys_only=True)
        answer = await self.ask(method.RANGE, request, again=True, timeout_s=timeout_s)
        self._term = max(self._term, answer.header.raft_term)
        return answer.header.revision

    async def ask_at(self, address: str, what: Method[Q, A], request: Q, *, timeout_s: float = CALL_S) -> A:
        """At this one address, whatever the others say, with or without a leader. Raises as `ask`."""
        endpoint = Endpoint(address, self._settings)
        try:
            metadata = await self._token_for(endpoint)
            return await endpoint.ask(what, request, timeout_s=timeout_s, metadata=metadata)
        except Fault as fault:
            raise fault.error from fault
        finally:
            await endpoint.close()

    @contextlib.asynccontextmanager
    async def stream(self, what: Method[Q, A]) -> AsyncIterator[Stream[Q, A]]:
        """One stream at the present endpoint. A Fault inside has the next stream tried elsewhere, and is raised."""
        endpoint = self._endpoints[self._at]
        try:
            await endpoint.connect(CONNECT_S)
            metadata = (_NEEDS_LEADER, *await self._token_for(endpoint))
            if endpoint is not self._endpoints[self._at]:
                raise ended("another endpoint is tried")  # given up meanwhile, which this stream would not hear of
            async with endpoint.stream(what, metadata) as stream:
                yield stream
        except Fault as fault:
            self.suspicious.set()
            if fault.outcome is Outcome.STRANGER:
                self._token = ""
            elif fault.outcome not in (Outcome.REFUSED, Outcome.PASSING):
                self._give_up(endpoint, fault.why)
            raise

    def forget_token(self) -> None:
        """The next call authenticates anew."""
        self._token = ""

    def use(self, settings: EtcdSettings) -> None:
        """Go on with other endpoints or certificates; streams begin anew, calls on their way are answered yet."""
        if settings == self._settings:
            return
        old, self._settings = self._endpoints, settings
        self._endpoints = [Endpoint(address, settings) for address in settings.endpoints]
        self._at = 0
        self._token = ""
        for endpoint in old:
            closing = asyncio.create_task(endpoint.close(CALL_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints), *self._closing)

    def _learn(self, endpoint: Endpoint, fault: Fault, *, again: bool) -> None:
        """Raise what ends the call, or prepare the next attempt."""
        if fault.outcome is Outcome.REFUSED:
            self._heard(endpoint)
            raise fault.error from fault
        if fault.outcome is Outcome.STRANGER:
            self._token = ""
        elif fault.outcome is not Outcome.PASSING:
            self._give_up(endpoint, fault.why)
        if fault.outcome is Outcome.UNSURE and not again:
            self.suspicious.set()
            raise _silent({endpoint.address: fault.why}) from fault

    def _give_up(self, endpoint: Endpoint, why: str) -> None:
        if len(self._endpoints) == 1 or endpoint is not self._endpoints[self._at]:
            return
        self._at = (self._at + 1) % len(self._endpoints)
        if endpoint.address not in self._silent:  # one line until it answers again
            other = self._endpoints[self._at].address
            log.info("etcd endpoint %s given up, trying %s: %s", endpoint.address, other, why)
        self._silent.add(endpoint.address)
        endpoint.give_up()

    def _heard(self, endpoint: Endpoint) -> None:
        self.heard_at = self.clock.monotonic()
        self._silent.discard(endpoint.address)
        if self.trouble:
            log.info("etcd answers again")
            self.trouble = ""

    async def _token_for(self, endpoint: Endpoint) -> Metadata:
        if not self._settings.user:
            return ()
        if not self._token:
            request = wire.AuthenticateRequest(name=self._settings.user, password=self._settings.password)
            answer = await endpoint.ask(method.AUTHENTICATE, request, timeout_s=CALL_S, metadata=(_NEEDS_LEADER,))
            self._token = answer.token
        return (("token", self._token),)


def _silent(reasons: dict[str, str]) -> Unavailable:
    said = "; ".join(f"{address}: {why}" for address, why in reasons.items()) or "no endpoint in time"
    return Unavailable(
        f"etcd does not answer ({said})", hint="what runs goes on; changes wait until most members of etcd are back"
    )
