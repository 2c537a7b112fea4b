"""User: a person or a program that may use the cluster from outside, with a certificate of its own."""

from __future__ import annotations

import enum

from shoal.model.base import Meta, Value


class UserRole(enum.IntEnum):
    """What a user may do. Each may do what those before it may."""

    VIEWER = 1
    DEPLOYER = 2
    OPERATOR = 3
    ADMIN = 4


class User(Value, frozen=True):
    """Its id is its name. `key` names the one key that it shows itself by (`shoal.tls.key_of`); after `expires_at_ns`
    or `revoked_at_ns` (0: not) it may do nothing."""

    meta: Meta = Meta()
    role: UserRole = UserRole.VIEWER
    description: str = ""
    key: str = ""
    expires_at_ns: int = 0
    revoked_at_ns: int = 0
