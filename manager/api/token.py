"""Calls on join tokens: those that let hosts in at any time, and those made for an occasion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.find import cluster_of
from manager.api.room import Room, writing
from manager.ca import admission
from manager.ca.token import JoinToken, fingerprint, new_secret, rotated, token_of
from manager.control.action import touched
from manager.control.roster import check_shared
from manager.store.base import Guard, Put, Txn
from manager.store.records import encode, key_for
from shoal.codec import to_wire
from shoal.errors import Exhausted, InvalidArgument
from shoal.ids import new_id, resolve
from shoal.model.base import Meta
from shoal.model.node import Role
from shoal.model.token import Token
from shoal.names import printable
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_MAX_DESCRIPTION = 200
# Each host that joins is compared with all of them.
_MAX_TOKENS = 1000


class TokenCalls:
    _room: Room

    async def GetJoinToken(self, request: wire.GetJoinTokenRequest, _context: Context) -> wire.GetJoinTokenResponse:
        role = self._role(request.role)
        if request.rotate:
            now_ns = self._room.clock.now_ns()
            view, seal = self._room.mirror, self._room.seal
            await self._room.change(
                lambda: writing(touched(rotated(cluster_of(view), role, seal), now_ns)),
                f"token of {role.name.lower()}s, made anew",
            )
        else:
            await self._room.note(f"token of {role.name.lower()}s")
        token = token_of(cluster_of(self._room.mirror), role, self._room.seal)
        return wire.GetJoinTokenResponse(token=token.text, managers=self._room.managers())

    async def CreateJoinToken(
        self, request: wire.CreateJoinTokenRequest, _context: Context
    ) -> wire.CreateJoinTokenResponse:
        if request.life_ns < 0:
            raise InvalidArgument("a token's life must not be negative")
        if len(self._room.mirror.tokens) >= _MAX_TOKENS:
            raise Exhausted(f"there are {_MAX_TOKENS} join tokens already", hint="those that ended go after a week")
        now_ns = self._room.clock.now_ns()
        secret = new_secret()
        token = Token(
            meta=Meta(id=new_id(), created_at_ns=now_ns, updated_at_ns=now_ns),
            role=self._role(request.role),
            description=printable(request.description)[:_MAX_DESCRIPTION],
            secret_hash=admission.hash_of(secret),
            uses=request.uses,
            expires_at_ns=now_ns + request.life_ns if request.life_ns else 0,
        )
        await self._room.write(Txn((Guard(key_for(token), 0),), (Put(key_for(token), encode(token)),)))
        text = JoinToken(fingerprint(cluster_of(self._room.mirror).root_ca_pem), secret).text
        return wire.CreateJoinTokenResponse(token=self._token_view(token), text=text, managers=self._room.managers())

    async def ListJoinTokens(
        self, request: wire.ListJoinTokensRequest, _context: Context
    ) -> wire.ListJoinTokensResponse:
        views = [self._token_view(token) for token in self._room.mirror.tokens.values()]
        shown = [view for view in views if request.all or view.state == admission.VALID]
        shown.sort(key=lambda view: (view.token.meta.created_at_ns, view.token.meta.id))
        return wire.ListJoinTokensResponse(tokens=shown)

    async def RevokeJoinToken(
        self, request: wire.RevokeJoinTokenRequest, _context: Context
    ) -> wire.RevokeJoinTokenResponse:
        tokens = self._room.mirror.tokens
        id = resolve(printable(request.token), tokens, kind="join token")
        now_ns = self._room.clock.now_ns()
        if not tokens[id].revoked_at_ns:
            await self._room.change(lambda: writing(touched(tokens[id], now_ns, revoked_at_ns=now_ns)))
        return wire.RevokeJoinTokenResponse()

    def _token_view(self, token: Token) -> wire.TokenView:
        shown = to_wire(token, types_pb2.Token)
        shown.ClearField("secret_hash")
        return wire.TokenView(token=shown, state=admission.state_of(token, self._room.clock.now_ns()))

    def _role(self, number: int) -> Role:
        """The role that hosts may join in. Raises InvalidArgument for one that is none, Unsupported for managers where
        there can be but one."""
        if number not in [role.value for role in Role]:
            raise InvalidArgument("unknown role", hint="a token is for a worker or a manager")
        role = Role(number)
        if role is Role.MANAGER:
            check_shared(self._room.store.kind)
        return role
