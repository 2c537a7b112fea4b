"""Where etcd is and how to come in: endpoints, certificates, a user."""

from __future__ import annotations

import msgspec


class EtcdSettings(msgspec.Struct, frozen=True):
    """`endpoints` are "HOST:PORT", tried in this order. All keys stand below `prefix`, so that others may use the same
    etcd. TLS where there is a `ca_pem`; `server_name` is then what etcd's certificate must say, empty: the endpoint's
    host or address. A `user` comes in by password; without one, the client certificate is enough."""

    endpoints: tuple[str, ...]
    prefix: str = "/shoal"
    ca_pem: str = ""
    certificate_pem: str = ""
    key_pem: str = ""
    server_name: str = ""
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"EtcdSettings(endpoints={self.endpoints!r}, prefix={self.prefix!r}, user={self.user!r}, ***)"
