"""Gate: who may call what on a server behind mutual TLS, asked again for as long as a call lasts.

That a caller's certificate is one of the cluster's, TLS has checked. What else counts is decided by a check that the
server brings (`agent/trust.py`, `manager/api/permission.py`). A stream that was let in is no licence for ever:
`review` asks again for every call under way, and those that would not be let in now end there and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc.aio
import msgspec

from shoal.clock import Clock
from shoal.errors import PermissionDenied
from shoal.model.node import CertificateInfo
from shoal.rpc import Surround
from shoal.tls import Peer, UserPeer, caller_of, shown_by

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Call(msgspec.Struct, frozen=True):
    """One call and who makes it. `method` is "/PACKAGE.SERVICE/METHOD"; `peer` is None for local root; `source` is
    gRPC's name of the other end ("ipv4:10.0.0.7:51234"), `certificate` what it showed."""

    method: str
    peer: Peer | UserPeer | None
    source: str
    certificate: CertificateInfo | None = None

    @property
    def service(self) -> str:
        """ "shoal.v1.BlobService" """
        return self.method.rpartition("/")[0].lstrip("/")

    @property
    def name(self) -> str:
        """ "ReadBlob" """
        return self.method.rpartition("/")[2]


REVIEW_S = 1.0


def address_of(source: str) -> str:
    """The address in gRPC's name of a peer ("ipv4:1.2.3.4:5", "ipv6:%5B::1%5D:5"); empty for a unix socket."""
    _, _, rest = unquote(source).partition(":")
    return rest.rpartition(":")[0].strip("[]").partition("%")[0]


# The call that the present task serves, where it came through a gate.
_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)


def current() -> Call | None:
    """The call that the present task serves; None where it is nobody's from outside."""
    return _current.get()


# Raises PermissionDenied for a call that may not be.
Check = Callable[[Call], None]


class Gate(Surround):
    """Lets in what `check` lets in. A connection may outlive the certificate that opened it; no call begins then.
    `grounds` stands for all that the rights of nodes follow from, which do not end with time: while it says the same,
    thousands of them need not be asked about again."""

    def __init__(self, check: Check, clock: Clock, *, grounds: Callable[[], object] = object) -> None:
        self._check = check
        self._clock = clock
        self._grounds = grounds
        self._inside: set[_Passage] = set()

    def review(self, *, nodes: bool = True) -> None:
        """Ask again for every call under way, or only for those of users; those that may not be any more end with the
        refusal."""
        for passage in [each for each in self._inside if nodes or not isinstance(each.call.peer, Peer)]:
            try:
                self._check(passage.call)
            except PermissionDenied as refusal:
                passage.end(refusal)

    async def run(self) -> None:
        """Review once a second, for as long as the server lives: rights end with time, too."""
        seen: object = None
        while True:
            await self._clock.sleep(REVIEW_S)
            before, seen = seen, self._grounds()
            self.review(nodes=seen != before)

    @contextlib.asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        call = Call(method, caller_of(context), context.peer(), shown_by(context))
        if call.certificate is not None and self._clock.now_ns() >= call.certificate.not_after_ns:
            raise PermissionDenied("the certificate of this connection has run out", hint="connect anew")
        self._check(call)
        passage = _Passage(call)
        self._inside.add(passage)
        _current.set(call)
        try:
            async with passage.scope:
                yield
        except TimeoutError:
            if passage.refusal is None:
                raise
            raise passage.refusal from None
        finally:
            self._inside.discard(passage)


class _Passage:
    """A call under way. Its scope has no deadline until somebody ends it."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.scope = asyncio.timeout(None)
        self.refusal: PermissionDenied | None = None

    def end(self, refusal: PermissionDenied) -> None:
        if self.refusal is None:
            self.refusal = refusal
            self.scope.reschedule(asyncio.get_running_loop().time())
