"""A service's credentials for its registry, sealed for the store. What is kept is the password (or the identity token),
never a token of the moment: so it is good for as long as the registry takes it, whenever a task starts."""

from __future__ import annotations

import msgspec

from manager.ca.authority import Seal
from shoal.errors import InvalidArgument
from shoal.model.base import Meta
from shoal.model.login import Login

_PURPOSE = "registry login"
_MOST_BYTES = 16 << 10


def sealed(seal: Seal, service_id: str, username: str, password: str) -> Login:
    """Opens as that service's alone. Raises InvalidArgument for what no registry gives."""
    secret = msgspec.msgpack.encode((username, password))
    if len(secret) > _MOST_BYTES:
        raise InvalidArgument(f"a registry's credentials of {len(secret)} bytes; {_MOST_BYTES} are allowed")
    return Login(Meta(id=service_id), seal.seal(secret, f"{_PURPOSE} {service_id}"))


def opened(seal: Seal, login: Login) -> tuple[str, str]:
    """User name and password."""
    return msgspec.msgpack.decode(seal.unseal(login.sealed, f"{_PURPOSE} {login.meta.id}"), type=tuple[str, str])
