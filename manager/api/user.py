"""Calls on users: who may use the cluster from outside, and as what. A user's key never comes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.find import cluster_of
from manager.api.room import Room, writing
from manager.ca.authority import key_of_request
from manager.control.action import touched
from manager.store import base
from manager.store.base import Guard, Put, Txn
from manager.store.records import encode, key_for
from shoal import defaults
from shoal.access import current
from shoal.codec import to_wire
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.base import Meta
from shoal.model.user import User, UserRole
from shoal.names import check_name, printable
from shoal.tls import UserPeer
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_MAX_DESCRIPTION = 200
_MAX_NAME = 63
_MIN_LIFE_NS = 60 * defaults.SECOND_NS
_MAX_LIFE_NS = 10 * 365 * 24 * 3600 * defaults.SECOND_NS


class UserCalls:
    _room: Room

    async def CreateUser(self, request: wire.CreateUserRequest, _context: Context) -> wire.CreateUserResponse:
        _check_name(request.name)
        if not _MIN_LIFE_NS <= request.life_ns <= _MAX_LIFE_NS:
            raise InvalidArgument("a user lives a minute at least, and ten years at most")
        now_ns = self._room.clock.now_ns()
        user = User(
            meta=Meta(id=request.name, created_at_ns=now_ns, updated_at_ns=now_ns),
            role=_role(request.role),
            description=printable(request.description)[:_MAX_DESCRIPTION],
            key=key_of_request(request.csr_pem),
            expires_at_ns=now_ns + request.life_ns,
        )
        try:
            await self._room.write(Txn((Guard(key_for(user), 0),), (Put(key_for(user), encode(user)),)))
        except base.Conflict as error:
            raise Conflict(
                f"user {request.name} already exists", hint="remove it first, or take another name"
            ) from error
        return wire.CreateUserResponse(
            user=to_wire(user, types_pb2.User),
            certificate_pem=self._certificate(user, request.csr_pem),
            root_ca_pem=self._room.authority().trust_pem,
            managers=self._room.managers(),
        )

    async def GetUser(self, request: wire.GetUserRequest, _context: Context) -> wire.GetUserResponse:
        return wire.GetUserResponse(user=to_wire(self._user(request.name), types_pb2.User))

    async def ListUsers(self, _request: wire.ListUsersRequest, _context: Context) -> wire.ListUsersResponse:
        users = self._room.mirror.users
        return wire.ListUsersResponse(users=[to_wire(users[name], types_pb2.User) for name in sorted(users)])

    async def UpdateUser(self, request: wire.UpdateUserRequest, _context: Context) -> wire.UpdateUserResponse:
        role, description = _role(request.role), printable(request.description)[:_MAX_DESCRIPTION]
        if request.version not in (0, self._user(request.name).meta.version):
            raise Conflict("update out of sequence: somebody else changed it meanwhile", hint="look again and retry")
        now_ns = self._room.clock.now_ns()
        await self._room.change(
            lambda: writing(touched(self._user(request.name), now_ns, role=role, description=description))
        )
        return wire.UpdateUserResponse(user=to_wire(self._user(request.name), types_pb2.User))

    async def RevokeUser(self, request: wire.RevokeUserRequest, _context: Context) -> wire.RevokeUserResponse:
        now_ns = self._room.clock.now_ns()
        if not self._user(request.name).revoked_at_ns:
            await self._room.change(lambda: writing(touched(self._user(request.name), now_ns, revoked_at_ns=now_ns)))
        return wire.RevokeUserResponse()

    async def RemoveUser(self, request: wire.RemoveUserRequest, _context: Context) -> wire.RemoveUserResponse:
        def attempt() -> Txn:
            user = self._user(request.name)
            return Txn((Guard(key_for(user), user.meta.version),), (), (key_for(user),))

        await self._room.change(attempt)
        return wire.RemoveUserResponse()

    async def RenewUser(self, request: wire.RenewUserRequest, _context: Context) -> wire.RenewUserResponse:
        call = current()
        if call is None or not isinstance(call.peer, UserPeer):
            raise InvalidArgument("only a user can renew itself", hint="call with the user's certificate")
        name, key, now_ns = call.peer.name, key_of_request(request.csr_pem), self._room.clock.now_ns()
        await self._room.change(lambda: writing(touched(self._user(name), now_ns, key=key)))
        return wire.RenewUserResponse(
            certificate_pem=self._certificate(self._user(name), request.csr_pem),
            root_ca_pem=self._room.authority().trust_pem,
        )

    def _certificate(self, user: User, csr_pem: str) -> str:
        """As long as the user lives; a new one moves no end."""
        now_ns = self._room.clock.now_ns()
        return self._room.authority().issue_user(
            csr_pem,
            name=user.meta.id,
            cluster_id=cluster_of(self._room.mirror).meta.id,
            life_ns=user.expires_at_ns - now_ns,
            now_ns=now_ns,
        )

    def _user(self, name: str) -> User:
        if (user := self._room.mirror.users.get(name)) is None:
            raise NotFound(f"No such user: {printable(name)}")
        return user


def _check_name(name: str) -> None:
    check_name(name, "user")
    if len(name) > _MAX_NAME or name.endswith(".shoal"):
        raise InvalidArgument(f"invalid user name {name}", hint="63 characters at most, and not in .shoal")


def _role(number: int) -> UserRole:
    if number not in [role.value for role in UserRole]:
        raise InvalidArgument("unknown role", hint="a user is a viewer, deployer, operator or admin")
    return UserRole(number)
