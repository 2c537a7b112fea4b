"""Login: a registry's credentials for the image of one service, apart from its spec: a spec is shown to whoever asks,
is rolled back, and lives longer than a password."""

from __future__ import annotations

from shoal.model.base import Meta, Value


class Login(Value, frozen=True):
    """`meta.id` is the service's. `sealed`: user name and password, which only managers can read."""

    meta: Meta = Meta()
    sealed: bytes = b""
