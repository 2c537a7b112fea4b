"""StoreAccess: how managers come to the store that they share. Who founds a cluster says it, and tells who joins."""

from __future__ import annotations

from shoal.model.base import Value


class StoreAccess(Value, frozen=True):
    """`endpoints` ("HOST:PORT") are etcd's; `managed`: the managers run that etcd themselves, and come in by who they
    are. Neither: the store is SQLite, in the data of the only manager. PEM texts are empty where nothing is shown."""

    endpoints: tuple[str, ...] = ()
    managed: bool = False
    prefix: str = ""
    ca_pem: str = ""
    certificate_pem: str = ""
    key_pem: str = ""
    user: str = ""
    password: str = ""

    @property
    def shared(self) -> bool:
        """Whether several managers can use it."""
        return self.managed or bool(self.endpoints)

    def __repr__(self) -> str:
        return f"StoreAccess(endpoints={self.endpoints!r}, managed={self.managed}, ***)"
